"""Initial weights that depend on (seed, repeat, fold) and the module's name, never on the trial.

So two trials of one fold start from the same head, and the A of rank r is the first r rows of the same draw (common
random numbers: what differs between two trials is only what is being compared).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor


def key_of(*parts: object) -> int:
    """A 64-bit number from a tuple of plain values, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _generator(key: int, name: str) -> Generator:
    return Generator(Philox(key=key_of(key, name)))


def initial_a(key: int, name: str, rank: int, in_features: int) -> Tensor:
    """A (rank, in): uniform on +-1/sqrt(in), as PEFT draws it (Kaiming uniform with a = sqrt(5)). B starts at zero.

    The first r rows are the same for every rank >= r.
    """
    bound = 1.0 / math.sqrt(in_features)
    draw = _generator(key, name).random((rank, in_features))
    return torch.from_numpy(((2.0 * draw - 1.0) * bound).astype(np.float32))


def initial_head_weight(key: int, name: str, shape: tuple[int, ...], deviation: float) -> Tensor:
    """A linear head weight (out, in): normal with the model's ``initializer_range`` as standard deviation."""
    draw = _generator(key, name).standard_normal(shape)
    return torch.from_numpy((draw * deviation).astype(np.float32))
