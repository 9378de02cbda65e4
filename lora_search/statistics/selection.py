"""The verdict: the smallest adapter that is not worse than the best by more than the margin, or "cannot tell yet".

Trials are judged by :mod:`standing`. Recommended is the fewest adapter parameters among the not-worse; undecided
while a smaller trial is neither shown worse nor shown not worse, or while nothing is shown not worse at all. The
recommended itself must be shown to be within the margin of whichever trial is truly best: scoring best once is not
enough.

Pure: frames in, :class:`Verdict` out; the same frames with another margin or confidence give another verdict without
    training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lora_search.errors import ExperimentError, Mistake
from lora_search.metrics import metric_named
from lora_search.spec import ADAPTER_FIELDS
from lora_search.statistics import wording
from lora_search.statistics.budget import more_cells_needed
from lora_search.statistics.comparison import correlated_t
from lora_search.statistics.examples import Recorded
from lora_search.statistics.levels import additive_scores
from lora_search.statistics.matrix import ScoreMatrix, score_matrix
from lora_search.statistics.standing import (
    OPEN,
    STATUSES,
    Standing,
    Status,
    recommend,
    shortfall_interval,
    standing,
)
from lora_search.statistics.stopped import rivalries, trial_to_readmit

_NUISANCE_COLUMNS = ("learning_rate", "dropout")


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the verdict shows it. Scores in metric units, ``score_interval`` holds the true score with 95 %."""

    trial: int
    adapter: Mapping[str, Any]
    nuisance: Mapping[str, Any]
    score_mean: float
    score_interval: tuple[float, float]
    adapter_parameters: int
    head_parameters: int
    seconds: float
    cells: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "adapter": dict(self.adapter),
            **self.nuisance,
            "score_mean": self.score_mean,
            "score_interval": [_finite(bound) for bound in self.score_interval],
            "adapter_parameters": self.adapter_parameters,
            "head_parameters": self.head_parameters,
            "seconds": self.seconds,
            "cells": self.cells,
        }


@dataclass(frozen=True)
class Comparison:
    """One trial against the best.

    Attributes:
        trial: the trial judged.
        difference: how much lower it scores than the best, over shared cells; metric units.
        interval: how much worse than the best of all others, stopped ones included, it may truly be; agrees with
            ``status``.
        probability_not_worse: that it is within the margin of the trial it is least surely within the margin of.
        status: settled either way, or open.
        against: the trial that decides (usually the best; for the best itself its closest rival).
        cells: number of shared cells with it.
    """

    trial: int
    difference: float
    interval: tuple[float, float]
    probability_not_worse: float
    status: Status
    against: int | None
    cells: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "difference": self.difference,
            "interval": [_finite(bound) for bound in self.interval],
            "probability_not_worse": self.probability_not_worse,
            "status": self.status,
            "against": self.against,
            "cells": self.cells,
        }


@dataclass(frozen=True)
class Verdict:
    """What the study says. ``to_dict()`` is verdict.json; ``sentence()`` is what a person would say.

    ``more_cells_needed`` is None when decided, and also when no number of further cells on these data would settle it.
    ``probability_not_worse`` is None when there was nothing to compare with. ``in_question`` is the smallest trial that
    keeps the verdict open, and ``rival`` the stopped one that may beat it, where only that keeps the verdict open;
    ``smaller_trials`` counts those with fewer adapter parameters than the recommended; ``stopped_trials`` those that
    racing left untrained, which are not recommended.
    """

    status: Literal["decided", "undecided", "no-trials"]
    recommended: TrialSummary | None
    best: TrialSummary | None
    margin: float
    confidence: float
    metric: str
    probability_not_worse: float | None
    cells_trained: int
    cells_skipped_by_racing: int | None
    corrected_score: float | None
    corrected_interval: tuple[float, float] | None
    holdout_score: float | None
    more_cells_needed: int | None
    warnings: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    in_question: TrialSummary | None = None
    rival: TrialSummary | None = None
    smaller_trials: int = 0
    stopped_trials: int = 0

    def sentence(self) -> str:
        """One sentence: the recommendation and how sure it is, or what is missing."""
        return wording.verdict_sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """The content of verdict.json; plain JSON types, infinite bounds as null."""
        interval = self.corrected_interval
        return {
            "status": self.status,
            "sentence": self.sentence(),
            "recommended": None if self.recommended is None else self.recommended.to_dict(),
            "best": None if self.best is None else self.best.to_dict(),
            "margin": self.margin,
            "confidence": self.confidence,
            "probability_not_worse": self.probability_not_worse,
            "metric": self.metric,
            "cells_trained": self.cells_trained,
            "cells_skipped_by_racing": self.cells_skipped_by_racing,
            "corrected_score": self.corrected_score,
            "corrected_interval": None if interval is None else [_finite(bound) for bound in interval],
            "holdout_score": self.holdout_score,
            "more_cells_needed": self.more_cells_needed,
            "warnings": list(self.warnings),
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }


def decide(
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    *,
    folds: int,
    margin: float,
    confidence: float,
    metric: str,
    repeats: int = 1,
    cells_skipped_by_racing: int | None = None,
    corrected_score: float | None = None,
    corrected_interval: tuple[float, float] | None = None,
    holdout_score: float | None = None,
    warnings: Sequence[str] = (),
    recorded: Recorded | None = None,
) -> Verdict:
    """Judge a study. Only a trial whose state is "complete" is recommended; it is compared with the stopped ones too.

    Args:
        trials: the store's trials frame. cells: the store's cells frame.
        folds: the k of k-fold.
        margin: accepted loss in metric units, e.g. 0.01.
        confidence: probability the verdict needs, above 0.5.
        metric: the column of ``cells`` that is the score.
        repeats: that every trial was to have.
        cells_skipped_by_racing, corrected_score, corrected_interval, holdout_score, warnings: passed into the verdict.
        recorded: the predictions of the study, to compare by; None compares by the scores of folds.

    Raises:
        ExperimentError: margin, confidence or folds out of range.
        StudyError: a frame lacks a column.
    """
    _check(folds, margin, confidence)
    matrix = score_matrix(trials, cells, metric, recorded=recorded)
    common: dict[str, Any] = {
        "margin": margin,
        "confidence": confidence,
        "metric": metric,
        "cells_trained": int((cells["state"] == "complete").sum()),
        "cells_skipped_by_racing": cells_skipped_by_racing,
        "corrected_score": corrected_score,
        "corrected_interval": corrected_interval,
        "holdout_score": holdout_score,
        "warnings": tuple(warnings),
        "stopped_trials": int((trials["state"] == "pruned").sum()),
    }
    if not matrix.trials:
        return Verdict(
            status="no-trials",
            recommended=None,
            best=None,
            probability_not_worse=None,
            more_cells_needed=None,
            comparisons=(),
            **common,
        )
    everyone = score_matrix(trials, cells, metric, states=("complete", "pruned"))
    pairs, rivals = rivalries(matrix, everyone, folds)
    looks = matrix.looks(folds, repeats)
    result = standing(pairs, margin, confidence, looks)
    chosen = recommend(result.status, additive_scores(matrix.scores), matrix.parameters, matrix.seconds)
    recommended, best, decided = int(chosen[0]), int(chosen[1]), bool(chosen[2])
    alone = len(rivals) == 1
    comparisons = tuple(
        Comparison(
            trial=number,
            difference=float(pairs.mean[best, row]),
            interval=(0.0, 0.0) if alone else shortfall_interval(pairs, row, confidence, looks),
            probability_not_worse=float(result.probability_not_worse[row]),
            status=STATUSES[int(result.status[row])],
            against=None if alone else rivals[int(result.against[row])],
            cells=int(pairs.cells[int(result.against[row]), row]),
        )
        for row, number in enumerate(matrix.trials)
    )
    question, rival, needed = None, None, None
    if not decided:
        question = _in_question(matrix, result, recommended)
        rival = trial_to_readmit(matrix, pairs, rivals, margin, confidence, looks)
        if rival is None:
            needed = more_cells_needed(matrix, folds=folds, margin=margin, confidence=confidence, planned=repeats)
        else:
            needed = folds * repeats - everyone.cells_of(rival)
    return Verdict(
        status="decided" if decided else "undecided",
        recommended=_summary(trials, matrix, recommended, folds, metric),
        best=_summary(trials, matrix, best, folds, metric),
        probability_not_worse=None if alone else comparisons[recommended].probability_not_worse,
        more_cells_needed=needed,
        comparisons=comparisons,
        in_question=None if question is None else _summary(trials, matrix, question, folds, metric),
        rival=None if rival is None else _summary(trials, everyone, everyone.trials.index(rival), folds, metric),
        smaller_trials=int((matrix.parameters < matrix.parameters[recommended]).sum()),
        **common,
    )


def score_interval(
    scores: Sequence[float], *, folds: int, level: float = 0.95, lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float]:
    """Interval for the true score of one trial from its cells; infinite with fewer than two.

    ``lowest`` and ``highest`` are the metric's own bounds, beyond which no score can be.

    The correlated t of the scores themselves, J - 1 degrees of freedom. Not shrunk: trials share the difficulty of a
    fold, so the spread of other trials says nothing that this one's does not.
    """
    low, high = correlated_t(np.asarray(scores, dtype=np.float64), folds).interval(level)
    if not math.isfinite(low) or not math.isfinite(high):
        return float(low), float(high)
    return max(float(low), lowest), min(float(high), highest)


def _summary(trials: pd.DataFrame, matrix: ScoreMatrix, row: int, folds: int, metric: str) -> TrialSummary:
    number = matrix.trials[row]
    record = trials.loc[trials["trial"] == number].iloc[0]
    scores = matrix.scores[row][~np.isnan(matrix.scores[row])]
    lowest, highest = metric_named(metric).bounds
    return TrialSummary(
        trial=number,
        adapter={name: _plain(record[name]) for name in ADAPTER_FIELDS if name in record.index},
        nuisance={name: _plain(record[name]) for name in _NUISANCE_COLUMNS if name in record.index},
        score_mean=float(scores.mean()),
        score_interval=score_interval(list(scores), folds=folds, lowest=lowest, highest=highest),
        adapter_parameters=int(matrix.parameters[row]),
        head_parameters=int(record["head_parameters"]) if "head_parameters" in record.index else 0,
        seconds=float(matrix.seconds[row]),
        cells=int(scores.size),
    )


def _in_question(matrix: ScoreMatrix, result: Standing, recommended: int) -> int:
    """The smallest open trial, the recommended where a stopped one shows all to be worse; among those of one size the
    most promising."""
    open_rows = np.flatnonzero(result.status == OPEN)
    if not open_rows.size:
        return recommended
    blocking = open_rows[matrix.parameters[open_rows] < matrix.parameters[recommended]]
    rows = blocking if blocking.size else open_rows
    return int(rows[np.lexsort((-result.probability_not_worse[rows], matrix.parameters[rows]))[0]])


def _check(folds: int, margin: float, confidence: float) -> None:
    mistakes = []
    if folds < 2:
        mistakes.append(Mistake("must be at least 2", "cv.folds", f"{folds}"))
    if not 0.0 <= margin < 1.0:
        mistakes.append(Mistake("must be at least 0 and below 1", "verdict.margin", f"{margin:g}"))
    if not 0.5 < confidence < 1.0:
        mistakes.append(Mistake("must be above 0.5 and below 1", "verdict.confidence", f"{confidence:g}"))
    if mistakes:
        raise ExperimentError(mistakes)


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number that JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
