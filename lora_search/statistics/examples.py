"""What each out-of-fold example contributes to the scores: the material of a comparison sharper than fold scores allow.

A metric that is a mean over examples (accuracy: 1 where right, 0 where wrong) is known example by example, and two
trials are compared on the same ones.

Metrics that are a function of sums over examples (macro F1, Matthews correlation) are made so: the pseudo-values of the
delete-one jackknife say what each of a fold's m examples contributes to its score,

    value_i = score + (m - 1) (score - score without i)

(Tukey 1958; Efron and Stein 1981), moved together so that their mean is the score. Their variance over m is that of the
score, for a score as smooth as these are; for a mean the values are the examples' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.metrics import METRICS, direction, has_own_unit
from lora_search.statistics.comparison import Array

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """Scores of single examples, of several rows (trials, or whatever is compared).

    A row has a fold of a repeat whole or not at all.

    Attributes:
        values: ``(rows, repeats, examples)``, in metric units, of which more is better: the score of a cell is the mean
            over its examples, a loss negative. NaN where the row was not trained on that fold.
        folds: ``(repeats, examples)``, the fold that held the example out; -1 where none did.
        groups: ``(examples,)``, examples of one group are not independent of each other.
        counted: whether values come from counting, so that a fold of m examples tells differences of about 1/m apart;
            an error in the unit of the label has no such measure.
    """

    values: Array
    folds: Indices
    groups: Indices
    counted: bool = True

    def __post_init__(self) -> None:
        repeats, examples = self.folds.shape
        if self.values.shape[1:] != (repeats, examples) or self.groups.shape != (examples,):
            raise ValueError(
                "values must be (rows, repeats, examples) with folds (repeats, examples) and groups (examples,),"
                f" got {self.values.shape}, {self.folds.shape} and {self.groups.shape}"
            )

    @property
    def columns(self) -> tuple[tuple[int, int], ...]:
        """(repeat, fold) of every cell there may be, ascending."""
        return tuple(
            (repeat, int(fold)) for repeat, row in enumerate(self.folds) for fold in np.unique(row) if fold >= 0
        )

    def cell_scores(self) -> Array:
        """``(rows, columns)``: what fold scores are made of these; NaN where not trained."""
        return np.stack(
            [self.values[:, repeat, self.folds[repeat] == fold].mean(axis=1) for repeat, fold in self.columns], axis=1
        )

    def of(self, rows: Sequence[int] | Indices) -> ExampleScores:
        """The same examples for some of the rows, in that order."""
        return replace(self, values=self.values[np.asarray(rows, dtype=np.int64)])

    def composed(self, sources: Indices) -> ExampleScores:
        """New rows put together from cells of several rows: an adapter whose learning rate was chosen fold by fold,
        or a trial of which only some cells are to be looked at.

        Args:
            sources: ``(new rows, columns)``, the row each cell comes from; -1 for none.
        """
        values = np.full((len(sources), *self.folds.shape), np.nan)
        for column, (repeat, fold) in enumerate(self.columns):
            held_out = self.folds[repeat] == fold
            has = sources[:, column] >= 0
            values[np.ix_(has, np.array([repeat]), held_out)] = self.values[
                np.ix_(sources[has, column], np.array([repeat]), held_out)
            ]
        return replace(self, values=values)


@dataclass(frozen=True, eq=False)
class Recorded:
    """The out-of-fold predictions of a study.

    Attributes:
        predictions: the store's frame: trial, repeat, fold, example and what was predicted, p0, p1, ...
        examples: the store's frame: label and group of every example, and what is right of it, where that is more.
    """

    predictions: pd.DataFrame
    examples: pd.DataFrame

    def scores(self, trials: Sequence[int], metric: str) -> ExampleScores | None:
        """One row per trial; None where the metric is not known, or one of the trials has no predictions.

        Args:
            trials: the rows, by trial number.
            metric: its name.

        Raises:
            StudyError: an example is in two folds of one repeat.
        """
        mine = self.predictions[self.predictions["trial"].isin(list(trials))]
        if metric not in METRICS or set(mine["trial"]) != set(trials) or not len(trials):
            return None
        row = pd.Series(np.arange(len(trials)), index=list(trials)).loc[mine["trial"]].to_numpy()
        repeat, fold, example = (mine[name].to_numpy(dtype=np.int64) for name in ("repeat", "fold", "example"))
        folds = np.full((int(repeat.max()) + 1, len(self.examples)), -1, dtype=np.int64)
        folds[repeat, example] = fold
        if (folds[repeat, example] != fold).any():
            raise StudyError("predictions: must hold each example out in one fold of a repeat, got one in two folds")
        names = [str(name) for name in mine.columns if str(name)[:1] == "p" and str(name)[1:].isdigit()]
        names.sort(key=lambda name: int(name[1:]))
        probabilities = mine[names].to_numpy()
        kind = METRICS[metric]
        truth = truth_of(self.examples)[example]
        cell = (row * folds.shape[0] + repeat) * (fold.max() + 1) + fold
        order = np.argsort(cell, kind="stable")
        values = np.full((len(trials), *folds.shape), np.nan)
        for one in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
            # fold by fold, for a rank is one among the examples that are scored together
            counted = kind.counts(truth[one], probabilities[one]).astype(float)
            values[row[one], repeat[one], example[one]] = direction(metric) * contributions(counted, kind.score)
        groups = self.examples["group"].to_numpy(dtype=np.int64)
        return ExampleScores(values, folds, groups, counted=not has_own_unit(metric))


def truth_of(examples: pd.DataFrame) -> NDArray[Any]:
    """What metrics take for the truth, (n, ...): the label of each example, or what is right of it, where that is more.

    Args:
        examples: the store's frame: label, group, and t0, t1, ... where a label says not all.
    """
    names: list[str] = [name for name in map(str, examples.columns) if name[:1] == "t" and name[1:].isdigit()]
    if not names:
        return examples["label"].to_numpy(dtype=np.int64)
    truth = examples[[f"t{place}" for place in range(len(names))]].to_numpy()
    return truth[:, 0] if truth.shape[1] == 1 else truth


def contributions(counts: Array, score: Callable[[Array], Array]) -> Array:
    """The pseudo-value of each example of one fold, ``(examples,)``; their mean is the fold's score.

    Args:
        counts: ``(examples, columns)``, what each adds.
        score: of sums, ``(..., columns)`` to ``(...)``.
    """
    total, others = counts.sum(axis=0), len(counts) - 1
    whole = score(total)
    if not others:
        return np.asarray(whole[None])
    lost = whole - score(total - counts)
    return np.asarray(whole + others * (lost - lost.mean()))
