"""Trainings that teach nothing, found out on the way: they leave their pack, and are scored as they stand.

A learning rate too small for the steps there are, or so large that nothing holds, leaves a model answering as one that
knows only how often each answer occurs. What it gains over that is seen step by step, on the very batches it is trained
on, so that what varies between batches cancels. A training *stalls* where, looked at after half and after three
quarters of its steps, the gain is below a fiftieth of what there is to be gained, and surely so: the upper end of the
one-sided interval (Student's t) of its mean over the steps since half as many. How often such a training would have
learned after all is measured, not assumed (``experiments/audits/stalling.py``).

Knows neither models nor packs: it is given losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

CHECKED_AT = (0.5, 0.75)
"""Shares of a training's steps after which it is looked at."""
LEARNED = 0.02
"""Share of what knowing nothing loses, gained by a training that learns."""
CONFIDENCE = 0.95
_LEAST_STEPS = 10
"""Fewer batches than this say too little."""

Losses = NDArray[np.float64]


def has_stalled(gains: Sequence[float], nothing: float) -> bool:
    """Whether a training teaches nothing, by what it has gained so far.

    Args:
        gains: of every step until now: the loss of knowing nothing, minus its own, on the step's batch.
        nothing: the loss of knowing nothing.
    """
    recent = np.asarray(gains[len(gains) // 2 :])
    if len(recent) < _LEAST_STEPS:
        return False
    error = recent.std(ddof=1) / np.sqrt(len(recent))
    bound = recent.mean() + special.stdtrit(len(recent) - 1, CONFIDENCE) * error
    return bool(bound < LEARNED * nothing)


class Stalling:
    """Watches one training.

    Args:
        nothing: (examples,), what each example of the dataset loses, over its units, for who knows only how often each
            answer occurs among those trained on.
        units: int64 (examples,), how many parts of the mean that is the loss each holds.
        steps: how many there are going to be.
    """

    def __init__(self, nothing: Losses, units: NDArray[np.int64], steps: int) -> None:
        self.nothing, self.units, self.steps = nothing, units, steps
        self.checks = {int(share * steps) for share in CHECKED_AT}
        self.gains: list[float] = []
        self.losses: list[float] = []

    def stalls(self, examples: NDArray[np.int64], loss: float) -> bool:
        """Whether the training has stalled, after one more step.

        Args:
            examples: of the step's batch.
            loss: its mean.
        """
        nothing = float(self.nothing[examples].sum() / max(1, int(self.units[examples].sum())))
        self.gains.append(nothing - loss)
        self.losses.append(loss)
        taken = len(self.gains)
        return taken in self.checks and has_stalled(self.gains, float(np.mean(self.losses) + np.mean(self.gains)))

    @property
    def recent_loss(self) -> float:
        """Mean over the steps it was judged by."""
        return float(np.mean(self.losses[len(self.losses) // 2 :]))
