"""Which trials need no more cells: those that would not change what the full run says.

After any cell, the rest of the full run is predicted many times over, and the verdict is taken on each prediction. What
a trial has is known; what it lacks is drawn around its level, shrunk toward the study's mean (:mod:`levels`: a leader
after one lucky fold is not believed at face value), with the noise measured so far. A trial *matters* in a prediction
if it is the recommended, or if it is the best and the verdict would be another without it.

**Error spending.** Trials are eliminated from the least likely to matter upwards, as long as the sum of these chances
over the whole study stays within ``error``, released as the study advances. So the chance that racing throws away
the adapter that the full run would recommend is bounded as far as the predictions are right;
experiments/audits/calibration.py measures it. The running sum ("spent") is kept by the caller: it is the only state.

Asking about the verdict itself, and not whether a trial is inferior by this or that test, keeps a noisy or small trial
that may yet be recommended, and drops a good one that nobody will need.

Each elimination carries its reason. *Inferior*: likely worse than another trial by more than the margin. *Futile*:
larger than another trial and unlikely to beat it by more than the margin.

Before two trials share two cells the noise is unknown and nothing is eliminated.

Arrays ``(draws, trials)`` hold one study, smallest trial first.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lora_search.statistics.comparison import Array, Mask
from lora_search.statistics.levels import Levels, fit_levels
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.question import Question

ERROR = 0.025
"""The predicted chance that may be spent; where trials differ much in noise the real one is up to twice as large.

More would not buy much. There, twice as much saves 5 of every 66 cells, and throws away 4.0 % (standard error 0.8) of
the full run's recommendations, where 5 % are promised; four times as much saves 11, and throws away 6.7 % (1.9)."""


@dataclass(frozen=True)
class Elimination:
    """One trial that needs no more cells.

    Attributes:
        trial: its number.
        reason: why.
        against: number of the trial it lost to.
        probability: of the reason: that in the full run it scores worse than ``against`` by more than the margin
            (inferior), or does not beat it by more than the margin (futile).
        charge: predicted chance that it would have changed the full run's verdict.
    """

    trial: int
    reason: Literal["inferior", "futile"]
    against: int
    probability: float
    charge: float


@dataclass(frozen=True)
class Race:
    """What one look at the study eliminates, and the error spent so far including it."""

    eliminated: tuple[Elimination, ...]
    spent: float


def race(
    matrix: ScoreMatrix,
    question: Question,
    *,
    trials: int,
    eliminated: Collection[int] = (),
    spent: float = 0.0,
    error: float = ERROR,
    draws: int = 2000,
    seed: int = 0,
) -> Race:
    """Look at a running study and name the trials that need no more cells. Deterministic in its arguments.

    Args:
        matrix: all trials with cells: running, complete, and those eliminated earlier (they still tell the noise).
        question: of the verdict.
        trials: trials the study will have in all, to pace the spending.
        eliminated: numbers of the trials eliminated earlier.
        spent: what earlier looks have spent.
        error: the most that may be spent over the whole study.
        draws: predictions made.
        seed: of the predictions.

    Returns:
        eliminations among the trials that lack planned cells, least important first.
    """
    planned, margin = question.planned, question.margin
    levels = fit_levels(matrix.scores, matrix.resolution)
    if np.isnan(levels.variance).any():
        return Race((), spent)
    out = np.isin(matrix.trials, list(eliminated))
    # rows of the trials still in, smallest first
    live = np.array([row for row in np.argsort(matrix.parameters, kind="stable") if not out[row]], dtype=np.int64)
    if live.size < 2:
        return Race((), spent)
    finals, variances = predict_full_run(levels, live, planned, draws, np.random.default_rng(seed))
    chances = chance_to_matter(finals, variances, question)
    done = np.where(out, planned, np.minimum(levels.cells, planned)).sum()
    allowed = error * release(float(done) / (planned * max(trials, out.size))) - spent
    chosen = cheapest(chances, levels.cells[live] < planned, allowed)
    found = []
    for place in chosen:
        reason, against, probability = reason_of(finals, matrix.parameters[live], place, margin)
        number, rival = matrix.trials[live[place]], matrix.trials[live[against]]
        found.append(Elimination(number, reason, rival, probability, float(chances[place])))
    return Race(tuple(found), spent + sum(loss.charge for loss in found))


def release(progress: float) -> float:
    """The share of the error that may be spent once this share of the full run's cells is trained or saved."""
    return math.sqrt(min(1.0, max(0.0, progress)))


def predict_full_run(
    levels: Levels, rows: NDArray[np.int64], planned: int, draws: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Scores of these rows at the end of the full run, and their noise variances, as predicted: ``(draws, rows)`` each.

    A trial with n of J cells ends at (n level + (J - n) rest) / J, where rest is normal around the believed level with
    variance trust v / n + v / (J - n); v itself is drawn, scaled inverse chi-square with its degrees of freedom.
    """
    cells, level, trust = levels.cells[rows], levels.level[rows], levels.trust[rows]
    missing = np.maximum(planned - cells, 0)
    df = np.maximum(levels.degrees_of_freedom[rows], 1.0)
    variances = levels.variance[rows] * df / rng.chisquare(df, size=(draws, rows.size))
    share = np.where(missing > 0, trust / np.maximum(cells, 1) + 1.0 / np.maximum(missing, 1), 0.0)
    rest = levels.believed[rows] + np.sqrt(share * variances) * rng.standard_normal(variances.shape)
    return (cells * level + missing * rest) / np.maximum(cells + missing, 1), variances


def chance_to_matter(finals: Array, variances: Array, question: Question) -> Array:
    """Share of the predictions in which a trial is recommended, or is the best and the verdict another without it.

    Args:
        finals: predicted scores, ``(draws, trials)``, smallest trial first.
        variances: predicted noise variances, same shape.
        question: of the verdict.

    Returns:
        ``(trials,)``; half a prediction is added, so that no chance is said to be zero.
    """
    draws, trials = finals.shape
    best = finals.argmax(axis=1)
    is_best = np.arange(trials) == best[:, None]
    runner_up = np.where(is_best, -np.inf, finals).argmax(axis=1)
    bounds, without_best = _bounds(finals, variances, best, question)
    verdict = _verdict(*bounds, best, question.margin)
    without = _verdict(*without_best, runner_up, question.margin, is_best)
    changed = (verdict[0] != without[0]) | (verdict[1] != without[1])
    matters = (np.arange(trials) == verdict[0][:, None]) | (is_best & changed[:, None])
    return np.asarray((matters.sum(axis=0) + 0.5) / (draws + 0.5))


def _bounds(
    finals: Array, variances: Array, best: NDArray[np.int64], question: Question
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Least favourable (upper, lower) bound of each trial's shortfall, and the same with the best left out.

    Trial by trial in float32: a table of all pairs in all draws would not stay in cache.
    """
    scores, noise = (np.ascontiguousarray(table.T, dtype=np.float32) for table in (finals, variances))
    factor = np.float32(
        special.ndtri(question.confidence) * np.sqrt(1.0 / question.planned + 1.0 / (question.folds - 1))
    )
    draw = np.arange(scores.shape[1])
    found = np.empty((4, *scores.shape))
    for row in range(len(scores)):
        gap = scores - scores[row]
        reach = factor * np.sqrt(noise + noise[row])
        for kind, bound in enumerate((gap + reach, gap - reach)):
            bound[row] = -np.inf
            found[kind, row] = bound.max(axis=0)
            bound[best, draw] = -np.inf
            found[kind + 2, row] = bound.max(axis=0)
    return (found[0].T, found[1].T), (found[2].T, found[3].T)


def cheapest(chances: Array, eligible: Mask, allowed: float) -> list[int]:
    """The eligible trials with the smallest chances whose sum stays within ``allowed``, smallest chance first."""
    order = [int(row) for row in np.argsort(chances, kind="stable") if eligible[row]]
    affordable = int((np.cumsum(chances[order]) <= allowed).sum())
    return order[:affordable]


def _verdict(
    upper: Array, lower: Array, best: NDArray[np.int64], margin: float, absent: Mask | None = None
) -> tuple[NDArray[np.int64], Mask]:
    """(recommended, decided) from the least favourable bounds of each trial, smallest first."""
    not_worse, open_ = upper <= margin, (upper > margin) & (lower <= margin)
    if absent is not None:
        not_worse, open_ = not_worse & ~absent, open_ & ~absent
    some = not_worse.any(axis=1)
    first = np.where(some, not_worse.argmax(axis=1), best)
    smaller = np.arange(upper.shape[1]) < first[:, None]
    return first, np.asarray(some & ~(open_ & smaller).any(axis=1))


def reason_of(
    finals: Array, parameters: Array, row: int, margin: float
) -> tuple[Literal["inferior", "futile"], int, float]:
    """Why a trial will not matter: the more telling of the two reasons, and against whom."""
    worse = (finals - finals[:, [row]] > margin).mean(axis=0)
    smaller = parameters < parameters[row]
    not_better = np.where(smaller, (finals[:, [row]] - finals <= margin).mean(axis=0), -1.0)
    rival, cheaper = int(worse.argmax()), int(not_better.argmax())
    if worse[rival] >= 0.5 or not smaller.any():
        return "inferior", rival, float(worse[rival])
    return "futile", cheaper, float(not_better[cheaper])
