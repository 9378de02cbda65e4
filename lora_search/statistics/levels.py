"""One number per trial when trials have different cells, and how far to believe it.

Two corrections. *Cells differ in difficulty*: a trial that got an extra, easier repeat must not look better for it,
so scores are fitted as trial + cell. *Cells are few*: a trial with one lucky fold must not look best, so levels are
shrunk toward the study's mean by what their noise calls for (the empirical Bayes of Efron and Morris 1975).

Arrays ``(..., trials, cells)``; NaN where not trained; leading axes are independent studies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import (
    Array,
    fit_variance_prior,
    residual_degrees_of_freedom,
    shrink_variance,
)

_MOST_FREEDOM = 4.0
"""The noise of a trial is never known better than from this many degrees of freedom, its own aside: how much trials
differ in noise shows late, and a race that took it for known threw away three times as many noisy trials as it said."""


@dataclass(frozen=True)
class Levels:
    """The additive model of a study, one entry per trial.

    Attributes:
        level: fitted score, comparable between trials.
        cells: number of cells behind it.
        variance: noise variance of one cell of the trial (its part that is not common to all trials), shrunk; NaN
            where unknown.
        degrees_of_freedom: behind ``variance``.
        believed: level shrunk toward the study's mean.
        trust: the share of its own deviation from the mean that is kept, 0 to 1.
    """

    level: Array
    cells: NDArray[np.int64]
    variance: Array
    degrees_of_freedom: Array
    believed: Array
    trust: Array


def fit_levels(scores: Array, resolution: float = 0.0) -> Levels:
    """Fit score = trial + cell, the noise of each trial, and how much of each level to believe.

    Args:
        scores: ``(..., trials, cells)``, NaN where not trained.
        resolution: as in ``comparison.pairwise``; half of it is each trial's own.
    """
    seen = ~np.isnan(scores)
    cells = seen.sum(axis=-1)
    level = additive_scores(scores)
    variance, df = _noise(scores, level, seen)
    variance = np.maximum(variance, resolution / 2.0)
    own = np.nan_to_num(variance) / np.maximum(cells, 1)
    centre, spread = _spread_of_levels(level, own, cells > 0)
    total = spread[..., None] + own
    # the noise unknown: nothing to correct by, the level stands
    trust = np.where(np.isnan(variance) | (total == 0), 1.0, spread[..., None] / np.where(total > 0, total, 1.0))
    believed = centre[..., None] + trust * (level - centre[..., None])
    return Levels(level, cells, variance, df, np.asarray(believed), np.asarray(trust))


def believed_scores(scores: Array) -> Array:
    """What to tell a sampler about trials with unequal, partly very few cells: ``(..., trials)`` in metric units."""
    return fit_levels(scores).believed


def additive_scores(scores: Array) -> Array:
    """Least squares of score = trial + cell; with equal cells the plain means.

    Args:
        scores: ``(..., trials, cells)``, NaN where not trained.

    Returns:
        ``(..., trials)``, centred so that their mean is the mean of the trials' own means.
    """
    seen = ~np.isnan(scores)
    if seen.all():
        return np.asarray(scores.mean(axis=-1))
    values, weight = np.where(seen, scores, 0.0), seen.astype(np.float64)
    per_trial, per_cell = np.maximum(weight.sum(axis=-1), 1.0), np.maximum(weight.sum(axis=-2), 1.0)
    share = weight / per_cell[..., None, :]
    system = np.eye(scores.shape[-2]) * per_trial[..., None] - share @ np.swapaxes(weight, -1, -2)
    right = values.sum(axis=-1) - (share @ values.sum(axis=-2)[..., None])[..., 0]
    effects = (np.linalg.pinv(system, hermitian=True) @ right[..., None])[..., 0]
    own = values.sum(axis=-1) / per_trial
    return np.asarray(effects - effects.mean(axis=-1, keepdims=True) + own.mean(axis=-1, keepdims=True))


def _noise(scores: Array, level: Array, seen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Residual variance of each trial, shrunk toward that of all; NaN where no residual has a degree of freedom."""
    above = np.where(seen, scores - level[..., None], 0.0)
    column = above.sum(axis=-2) / np.maximum(seen.sum(axis=-2), 1)
    squares = np.where(seen, (above - column[..., None, :]) ** 2, 0.0).sum(axis=-1)
    own = np.maximum(seen.sum(axis=-1) - 1, 0).astype(np.float64)
    free = residual_degrees_of_freedom(scores)
    # the cells' own effects take their share of every trial's degrees of freedom
    kept = free / np.maximum(own.sum(axis=-1), 1.0)
    usable = (own > 0) & (kept > 0)[..., None]
    variance = np.where(usable, squares / np.where(usable, own * kept[..., None], 1.0), np.nan)
    prior = fit_variance_prior(variance, own, most=np.minimum(free, np.maximum(own, _MOST_FREEDOM).max(axis=-1)))
    shrunk, df = shrink_variance(variance, own, prior.over(1))
    pooled = squares.sum(axis=-1) / np.where(free > 0, free, np.nan)
    missing = np.isnan(shrunk)
    return np.where(missing, pooled[..., None], shrunk), np.where(missing, free[..., None], df)


def _spread_of_levels(level: Array, own: Array, present: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Centre of the levels, and the variance between true levels: the smaller of a plain and a robust estimate.

    A few trials that collapsed would make the plain one huge and every lucky fold believable.
    """
    shown = np.where(present, level, np.nan)
    centre = np.nanmedian(shown, axis=-1)
    deviation = shown - centre[..., None]
    robust = (1.4826 * np.nanmedian(np.abs(deviation), axis=-1)) ** 2
    plain = np.nanmean(deviation**2, axis=-1)
    noise = np.nanmean(np.where(present, own, np.nan), axis=-1)
    return centre, np.asarray(np.maximum(np.minimum(robust, plain) - noise, 0.0))
