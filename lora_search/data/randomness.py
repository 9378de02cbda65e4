"""Where the random choices about data come from: the seed, what the choice is for, and nothing else.

Each purpose has its own stream, so that adding a hold-out or a repeat does not change what another choice draws.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream of random numbers is for. The values are part of every split ever made: never reuse one."""

    HOLDOUT = 1
    FOLDS = 2
    SAMPLE = 3


def generator(seed: int, purpose: Purpose, *which: int) -> np.random.Generator:
    """The stream of ``(seed, purpose, which...)``; ``which`` tells repeats and attempts apart."""
    return np.random.default_rng([seed, purpose, *which])
