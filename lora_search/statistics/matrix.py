"""The trials and cells frames of a study as arrays: one row per competing trial, one column per (repeat, fold)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.metrics import METRICS, direction
from lora_search.statistics.comparison import Array, Posterior, correlated_t, pairwise
from lora_search.statistics.examples import ExampleScores, Recorded
from lora_search.statistics.levels import additive_scores
from lora_search.statistics.two_sources import pairwise_by_example, scores_by_example

_TRIAL_COLUMNS = ("trial", "state", "adapter_parameters")
_CELL_COLUMNS = ("trial", "repeat", "fold", "state")


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of the trials that compete, as the statistics want them.

    Attributes:
        trials: trial numbers, one per row, ascending.
        columns: (repeat, fold) of each column, ascending.
        scores: ``(trials, columns)`` in metric units, of which more is better: a loss is negative; NaN where the cell
            was not trained.
        parameters: adapter parameters of each trial.
        seconds: compute seconds of each trial, 0 where unknown.
        resolution: variance of a difference of two cells that comes from counting alone. A share of m examples is a
            multiple of 1/m, so it is rounded by up to half of that: 1 / (12 m^2) each, with the median m. 0 where the
            examples are not known, and for a loss.
        examples: what single examples contribute, for the same rows; None where the metric is no mean over examples, or
            predictions are not at hand.
        training_share: of the variance between folds, what trainings contribute, where examples do not tell it; 1
            assumes the least (see ``comparison``).
    """

    trials: tuple[int, ...]
    columns: tuple[tuple[int, int], ...]
    scores: Array
    parameters: Array
    seconds: Array
    resolution: float = 0.0
    examples: ExampleScores | None = None
    training_share: float = 1.0
    _pairs: dict[int, Posterior] = field(default_factory=dict, repr=False, compare=False)
    _own: dict[int, Posterior] = field(default_factory=dict, repr=False, compare=False)

    def pairs(self, folds: int) -> Posterior:
        """Every row against every row, entry [b, c] about score(b) - score(c): from the examples where they are known
        (see ``two_sources``), else from the scores of folds (see ``comparison``)."""
        if folds not in self._pairs:  # asked for several times by one verdict
            self._pairs[folds] = (
                pairwise(self.scores, folds, resolution=self.resolution, training_share=self.training_share)
                if self.examples is None
                else pairwise_by_example(self.examples, folds)
            )
        return self._pairs[folds]

    def own(self, folds: int) -> Posterior:
        """The true score of every row, ``(rows,)``; from the same sources as ``pairs``."""
        if folds not in self._own:
            self._own[folds] = (
                correlated_t(self.scores, folds) if self.examples is None else scores_by_example(self.examples, folds)
            )
        return self._own[folds]

    @cached_property
    def levels(self) -> Array:
        """One number per trial, comparable where they have different cells: ``additive_scores``."""
        return additive_scores(self.scores)

    @cached_property
    def by_size(self) -> NDArray[np.int64]:
        """The rows, of the fewest parameters first, among equals of the highest level first."""
        return np.asarray(np.lexsort((-self.levels, self.parameters)))

    def cells_of(self, trial: int) -> int:
        """How many cells the trial of this number has."""
        return int((~np.isnan(self.scores[self.trials.index(trial)])).sum())

    def looks(self, folds: int, planned: int, repeats: int = 0) -> int:
        """How often the verdict could have been taken: once after the ``planned`` repeats, and once more for every
        extra repeat of a finalist, those still to come included where there are to be ``repeats``."""
        most = int((~np.isnan(self.scores)).sum(axis=1).max()) // folds
        return max(repeats, most, planned) - planned + 1


def score_matrix(
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    metric: str,
    *,
    states: tuple[str, ...] = ("complete",),
    recorded: Recorded | None = None,
) -> ScoreMatrix:
    """Rows are the trials in one of ``states`` with at least one complete cell; only complete, finite cells count.

    Args:
        trials: the store's trials frame.
        cells: the store's cells frame.
        metric: the column of ``cells`` that holds the score.
        states: which trials to take.
        recorded: the predictions of the study; None compares by the scores of folds.

    Raises:
        StudyError: a column is missing.
    """
    _require(trials, _TRIAL_COLUMNS, "trials")
    _require(cells, (*_CELL_COLUMNS, metric), "cells")
    wanted = trials[trials["state"].isin(states)].sort_values("trial")
    usable = cells[(cells["state"] == "complete") & cells["trial"].isin(wanted["trial"])]
    usable = usable[np.isfinite(usable[metric].to_numpy(dtype=np.float64))]
    wanted = wanted[wanted["trial"].isin(usable["trial"])]
    numbers = tuple(int(number) for number in wanted["trial"])
    keys = list(zip(usable["repeat"].astype(int), usable["fold"].astype(int), strict=True))
    columns = tuple(sorted(set(keys)))
    row_of = {number: row for row, number in enumerate(numbers)}
    column_of = {key: column for column, key in enumerate(columns)}
    scores = np.full((len(numbers), len(columns)), np.nan)
    for trial, key, score in zip(usable["trial"], keys, direction(metric) * usable[metric], strict=True):
        scores[row_of[int(trial)], column_of[key]] = float(score)
    seconds = wanted["seconds"] if "seconds" in wanted else pd.Series(0.0, index=wanted.index)
    return ScoreMatrix(
        trials=numbers,
        columns=columns,
        scores=scores,
        parameters=_numbers(wanted["adapter_parameters"]),
        seconds=np.nan_to_num(_numbers(seconds)),
        resolution=_resolution(usable) if metric not in METRICS or METRICS[metric].unit == "points" else 0.0,
        examples=None if recorded is None else recorded.scores(numbers, metric),
    )


def _resolution(cells: pd.DataFrame) -> float:
    if "examples" not in cells or cells.empty:
        return 0.0
    return float(2.0 / 12.0 / max(1.0, cells["examples"].median()) ** 2)


def _numbers(column: pd.Series[float]) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64))


def _require(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise StudyError.about(
            name, f"must have the columns {', '.join(columns)}", got=f"none named {', '.join(missing)}"
        )
