"""What the winner would score on new data: BBC-CV, the bootstrap of the selection itself.

The best of many noisy scores flatters its owner. Tsamardinos, Greasidou and Borboudakis (2018, Algorithm 4) repeat
the selection on bootstrap samples of the pooled out-of-fold predictions and score each winner on the examples its
sample left out. Nothing is trained again, and the mean over samples is free of the selection's bias. Examples of one
group are drawn together, as the folds kept them together; repeats of the cross-validation share the sample and their
scores are averaged.

The rule that is repeated: the fewest adapter parameters among the trials within a tolerance of the best score. The
tolerance is what the recommended trial is below the best on the pooled predictions, and smaller trials, which the
verdict found worse, do not take part: so the rule gives the recommended trial itself where nothing is drawn.

The interval departs from the paper, whose percentiles hold the switching between winners too and the scatter of a
left-out part, 37 % of the examples. What a winner's score is uncertain by is its own bootstrap standard error. Where
the bootstrap selects worse than all data would (a clear winner), the corrected score is too low; the truth lies
between it and the naive score. So the interval reaches its own error below the corrected score, and as far above the
middle of the two. Half way is what simulated studies call for (experiments/audits/calibration.py), not a theorem; of
them, 95 % intervals hold the truth in 97 %, and in 94 % at the least kind.

Not modelled: a score on pooled predictions differs from the mean of fold scores for metrics that are no mean
over examples (macro F1, Matthews correlation), usually by less than it is uncertain.

A bootstrap sample is a weighting of the examples, and a metric a function of sums (see ``metrics``): so all samples of
all trials are a few matrix products, made of some samples and some trials at a time, whatever the number of examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from lora_search.errors import StudyError
from lora_search.metrics import Metric, metric_named, total
from lora_search.statistics.comparison import Array

Labels = NDArray[np.int64]
Predictions = NDArray[np.float32]
Draws = NDArray[np.uint16]

_MOST_DRAWN = 2**20
"""Drawn examples in hand at a time, all samples together: 8 MiB of them."""
_MOST_COLUMNS = 256
"""Counts added up at a time, all trials together."""


@dataclass(frozen=True)
class PooledPredictions:
    """Out-of-fold predictions of several trials for the same examples.

    Attributes:
        trials: trial numbers.
        examples: example numbers, ``(n,)``.
        predicted: what was predicted, ``(trials, repeats, n, columns)``.
    """

    trials: tuple[int, ...]
    examples: Labels
    predicted: Predictions


@dataclass(frozen=True)
class CorrectedScore:
    """A winner's score without the flattery, in metric units.

    Attributes:
        score: corrected estimate.
        interval: holds the winner's true score with the level asked for.
        naive: what the winner scored on the pooled predictions.
        winner: row of the winner.
    """

    score: float
    interval: tuple[float, float]
    naive: float
    winner: int


def pool_predictions(predictions: pd.DataFrame, trials: Sequence[int]) -> PooledPredictions:
    """Bring out-of-fold predictions into one array, over the repeats in which every trial predicted every example.

    Args:
        predictions: the store's frame: trial, repeat, fold, example and probabilities p0, p1, ...
        trials: trials that got full cells.

    Raises:
        StudyError: there is no repeat in which all of them predicted the same examples.
    """
    columns = sorted((name for name in predictions.columns if name[:1] == "p" and name[1:].isdigit()), key=_position)
    rows = predictions[["trial", "repeat", "example"]].to_numpy(dtype=np.int64)
    values = predictions[columns].to_numpy(dtype=np.float32)
    found: list[Predictions] = []
    examples: Labels | None = None
    for repeat in np.unique(rows[:, 1]):
        of_trials = [np.flatnonzero((rows[:, 0] == trial) & (rows[:, 1] == repeat)) for trial in trials]
        of_trials = [mine[np.argsort(rows[mine, 2], kind="stable")] for mine in of_trials]
        numbers = rows[of_trials[0], 2]
        alike = all(np.array_equal(rows[mine, 2], numbers) for mine in of_trials)
        if alike and len(numbers) and (examples is None or np.array_equal(examples, numbers)):
            examples = numbers
            found.append(np.stack([values[mine] for mine in of_trials]))
    if examples is None:
        raise StudyError.about(
            "predictions", f"must cover the same examples for trials {list(trials)} in one repeat", got="no such"
        )
    return PooledPredictions(tuple(trials), examples, np.stack(found, axis=1))


def corrected_score(
    predicted: Predictions,
    truth: NDArray[np.generic],
    *,
    metric: str,
    parameters: Array | None = None,
    recommended: int | None = None,
    groups: Labels | None = None,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> CorrectedScore:
    """Bias-corrected score of the winner among trials with full cells.

    Args:
        predicted: ``(trials, repeats, n, columns)`` out-of-fold predictions, as the metric takes them.
        truth: ``(n, ...)`` what is right.
        metric: its name.
        parameters: ``(trials,)`` adapter parameters; needed with ``recommended``.
        recommended: row of the recommended trial; None for the best.
        groups: ``(n,)`` group of each example; None if each stands alone.
        level: of the interval.
        samples: bootstrap samples.
        seed: of the bootstrap; the same seed gives the same numbers.

    Raises:
        ExperimentError: an unknown metric.
    """
    measure = metric_named(metric)
    sizes = np.zeros(len(predicted)) if parameters is None else np.asarray(parameters, dtype=np.float64)
    member = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]
    drawn = _drawn(int(member.max()) + 1, samples, np.random.default_rng(seed))
    full, inside, outside = _tables(measure, predicted, truth, member, drawn)
    winner, tolerance = recommended, 0.0
    if winner is None:
        winner = int(_select(full, sizes, tolerance)[0])
    else:
        full, inside, outside = (
            np.where((sizes < sizes[winner])[:, None], -np.inf, table) for table in (full, inside, outside)
        )
        tolerance = max(0.0, float(full.max() - full[winner, 0]))
    chosen = _select(inside, sizes, tolerance)
    left_some_out = (drawn == 0).any(axis=1)
    score = float(outside[chosen, np.arange(samples)][left_some_out].mean())
    naive = float(full[winner, 0])
    reach = float(special.ndtri((1.0 + level) / 2.0)) * float(inside[winner].std())
    low, high = min(score, naive) - reach, max(score, (score + naive) / 2.0) + reach
    if not measure.greater_is_better:
        score, naive, low, high = -score, -naive, -high, -low
    lowest, highest = measure.bounds
    return CorrectedScore(score, (max(low, lowest), min(high, highest)), naive, winner)


def _position(column: str) -> int:
    return int(column[1:])


def _drawn(groups: int, samples: int, rng: np.random.Generator) -> Draws:
    """How often each group is in each bootstrap sample of as many groups: ``(samples, groups)``."""
    times = np.empty((samples, groups), dtype=np.uint16)
    for part in _parts(samples, _MOST_DRAWN // groups):
        some = times[part]
        places = rng.integers(0, groups, size=some.shape) + groups * np.arange(len(some))[:, None]
        some[:] = np.bincount(places.ravel(), minlength=some.size).reshape(some.shape)
    return times


def _parts(count: int, most: int) -> Iterator[slice]:
    """0 to ``count`` in parts of ``most``, of one where that is less."""
    step = max(1, most)
    return (slice(start, min(count, start + step)) for start in range(0, count, step))


def _tables(
    metric: Metric, predicted: Predictions, truth: NDArray[np.generic], member: Labels, drawn: Draws
) -> tuple[Array, Array, Array]:
    """Scores averaged over repeats, the better the greater: of all examples ``(trials, 1)``; of those in each sample
    and of those it left out, ``(trials, samples)``.

    Args:
        metric: what is scored.
        predicted: ``(trials, repeats, n, columns)``.
        truth: ``(n, ...)``.
        member: ``(n,)`` group of each example, from 0.
        drawn: ``(samples, groups)``.
    """
    trials, repeats = predicted.shape[:2]
    samples, groups = drawn.shape
    sign = 1.0 if metric.greater_is_better else -1.0
    full, inside, outside = (np.zeros((trials, width)) for width in (1, samples, samples))
    width = repeats * metric.counts(truth[:1], predicted[0, 0, :1]).shape[1]
    for batch in _parts(trials, _MOST_COLUMNS // width):
        counts = [[metric.counts(truth, repeat) for repeat in trial] for trial in predicted[batch]]
        for row, trial in enumerate(counts, batch.start):
            full[row] = sign * sum(metric.score(total(repeat)) for repeat in trial) / repeats
        columns = np.concatenate([_by_group(repeat, member, groups) for trial in counts for repeat in trial], axis=1)
        for part in _parts(samples, _MOST_DRAWN // groups):
            times = drawn[part].astype(columns.dtype)
            for table, weights in ((inside, times), (outside, (times == 0).astype(columns.dtype))):
                sums = (weights @ columns).astype(np.float64).reshape(len(times), -1, repeats, width // repeats)
                table[batch, part] = sign * metric.score(sums).sum(axis=2).T / repeats
    return full, inside, outside


def _by_group(counts: NDArray[np.generic], member: Labels, groups: int) -> NDArray[np.generic]:
    """Sums over the examples of each group, ``(groups, counts)``: float32 of whole numbers, which it holds exactly up
    to 16 million and adds up twice as fast; else float64."""
    sums = np.zeros((groups, counts.shape[1]), dtype=np.float32 if counts.dtype.kind in "iu" else np.float64)
    np.add.at(sums, member, counts)
    return sums


def _select(scores: Array, parameters: Array, tolerance: float) -> NDArray[np.int64]:
    """Winner of each column of ``(trials, samples)``: smallest within ``tolerance`` of the best, then by score."""
    near = scores >= scores.max(axis=0) - tolerance - 1e-12
    sizes = np.where(near, parameters[:, None], np.inf)
    smallest = near & (sizes == sizes.min(axis=0))
    return np.asarray(np.where(smallest, scores, -np.inf).argmax(axis=0))
