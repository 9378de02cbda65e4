"""Where each trial stands against the best, whichever that is: not worse, worse, or open.

One comparison asks P(delta <= margin) >= confidence. A study asks it about a best that it had to find among noisy
scores, of many trials at once, and perhaps more than once. Three things keep its promise (the recommended is truly
worse than the best by more than the margin in at most 1 - confidence of the studies):

*The best is not taken for granted.* A trial is compared with every other trial, and the least sure of these
comparisons counts: it must be within the margin of whichever is truly best (an intersection-union test, Berger 1982:
no adjustment is needed, since only the comparison with the true best can be wrong). This holds for the top scorer
too. Comparing with the top scorer alone and excusing the top scorer itself, two adapters 1.001 margins apart get the
wrong verdict in 14 % of noisy studies instead of 5 % (simulated in the tests).

*The smallest is asked first.* The verdict goes through the trials by size, and goes on to the next only past one that
is shown worse. A trial close enough to the margin to pass by luck is hardly ever shown worse either, so the errors do
not add up over the trials (a fixed sequence of tests, Maurer, Hothorn and Lehmacher 1995).

*A verdict looked at again after every extra repeat* gets several chances to be wrong. The looks share much of their
data and all of the dataset's own luck; L of them make an error of 5 % about sqrt(L) times as likely (simulated for 3 to
10 folds and 2 to 4 looks). Probabilities of error are multiplied by that.

Arrays ``(..., trials)``; leading axes are independent studies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lora_search.statistics.comparison import Array, Posterior

Status = Literal["not-worse", "worse", "open"]
STATUSES: dict[int, Status] = {1: "not-worse", 0: "open", -1: "worse"}
NOT_WORSE, OPEN, WORSE = 1, 0, -1
_ROUNDING = 1e-6
"""Relative error of a quantile that is certainly larger than that of the function which computes it."""


@dataclass(frozen=True)
class Standing:
    """Each trial against the best of the others.

    Attributes:
        status: 1 not worse, 0 open, -1 worse (by more than the margin).
        probability_not_worse: of being within the margin of the trial it is least surely within the margin of;
            corrected for looks.
        against: index of that other trial, or further rival.
    """

    status: NDArray[np.int8]
    probability_not_worse: Array
    against: NDArray[np.int64]


def required_probability(confidence: float, looks: int) -> float:
    """The posterior probability a claim needs so that it may be made with ``confidence`` at any of ``looks`` looks."""
    return 1.0 - (1.0 - confidence) / math.sqrt(looks)


def standing(pairs: Posterior, margin: float, confidence: float, looks: int = 1) -> Standing:
    """Judge every trial from the posteriors of all pairs.

    Args:
        pairs: entry [b, c] about score(b) - score(c), shape ``(..., rivals, trials)``; the first rivals are the trials
            themselves, and there may be more.
        margin: how much worse than the best is accepted, in metric units.
        confidence: probability each claim needs.
        looks: how often the verdict could have been taken, now included.
    """
    within = _least_probabilities(pairs, margin)
    # where several are equally (un)sure, as with no noise at all, the one that is furthest ahead decides
    ahead = np.where(within == within.min(axis=-2, keepdims=True), pairs.mean, -np.inf)
    probability = np.minimum(within.min(axis=-2), 1.0)
    required = required_probability(confidence, looks)
    status = np.where(probability >= required, NOT_WORSE, np.where(1.0 - probability >= required, WORSE, OPEN))
    corrected = np.maximum(1.0 - (1.0 - probability) * math.sqrt(looks), 0.0)
    return Standing(status.astype(np.int8), np.asarray(corrected), ahead.argmax(axis=-2))


def _least_probabilities(pairs: Posterior, margin: float) -> Array:
    """P(delta <= margin) of the pairs of which one may be the least of its trial; infinite elsewhere, and of a trial
    against itself.

    Of hundreds of rivals all but a few are out of the question by their t statistic alone, which costs next to nothing.
    """
    themselves = np.eye(*pairs.mean.shape[-2:], dtype=np.bool_)
    statistic = np.where(themselves, np.inf, pairs.t_statistic(margin))
    freedom = pairs.degrees_of_freedom
    first = statistic.argmin(axis=-2, keepdims=True)
    reached = special.stdtr(*(np.take_along_axis(each, first, axis=-2) for each in (freedom, statistic)))
    # a smaller probability is on the other side of the same quantile, of the most or the fewest degrees of freedom
    bound = np.maximum(*(special.stdtrit(each, reached) for each in (freedom.min(), freedom.max())))
    with np.errstate(invalid="ignore"):
        possible = ~themselves & ~(statistic > bound + _ROUNDING * (1.0 + np.abs(bound)))
    within = np.full(statistic.shape, np.inf)
    within[possible] = special.stdtr(freedom[possible], statistic[possible])
    return within


def shortfall_intervals(pairs: Posterior, confidence: float, looks: int = 1) -> tuple[Array, Array]:
    """How much worse than the best of its rivals each trial may truly be: bounds ``(trials,)``; for one study.

    Each bound holds with ``confidence``. "Not worse" is the same as "the upper bound is within the margin", "worse"
    the same as "the lower bound is beyond it". Negative where the trial beats all others.
    """
    themselves = np.eye(*pairs.mean.shape[-2:], dtype=np.bool_)
    required = required_probability(confidence, looks)
    low, high = (np.where(themselves, -np.inf, pairs.quantile(end)).max(axis=-2) for end in (1.0 - required, required))
    return low, high


def recommend(
    status: NDArray[np.int8], scores: Array, parameters: Array, seconds: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The verdict: (recommended, best, decided), as indices along the last axis.

    Recommended is the fewest adapter parameters among the not-worse, ties by score, then seconds; while no trial is
    shown not worse it is the best so far. Decided when the recommended is shown not worse and every smaller trial
    shown worse.
    """
    status, scores, parameters, seconds = np.broadcast_arrays(status, np.round(scores, 12), parameters, seconds)
    best = np.lexsort((seconds, parameters, -scores), axis=-1)[..., 0]
    order = np.lexsort((seconds, -scores, parameters), axis=-1)
    place = np.argsort(order, axis=-1)
    passing = status == NOT_WORSE
    first = np.where(passing, place, status.shape[-1]).argmin(axis=-1)
    some = passing.any(axis=-1)
    recommended = np.where(some, first, best)
    size = np.take_along_axis(parameters, recommended[..., None], axis=-1)
    decided = some & ~((status == OPEN) & (parameters < size)).any(axis=-1)
    return recommended, best, decided
