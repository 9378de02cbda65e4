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
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lora_search.metrics import direction, metric_named
from lora_search.spec import ADAPTER_FIELDS, facts
from lora_search.statistics.budget import more_cells_needed
from lora_search.statistics.contest import Contest
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.question import Question
from lora_search.statistics.standing import OPEN, STATUSES, Standing, recommend, shortfall_intervals, standing
from lora_search.statistics.stopped import trial_to_readmit
from lora_search.statistics.verdict import Comparison, TrialSummary, Verdict

_NUISANCE_COLUMNS = ("learning_rate", "dropout")


def decide(
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    question: Question,
    *,
    cells_skipped_by_racing: int | None = None,
    corrected_score: float | None = None,
    corrected_interval: tuple[float, float] | None = None,
    holdout_score: float | None = None,
    warnings: Sequence[str] = (),
    contest: Contest | None = None,
) -> Verdict:
    """Judge a study. Only a trial whose state is "complete" is recommended; it is compared with the stopped ones too.

    Args:
        trials: the store's trials frame. cells: the store's cells frame.
        question: what is asked of them.
        cells_skipped_by_racing, corrected_score, corrected_interval, holdout_score, warnings: passed into the verdict.
        contest: the scores of these frames, where they are at hand; by default those of folds.

    Raises:
        StudyError: a frame lacks a column.
    """
    folds, margin, confidence, metric = question.folds, question.margin, question.confidence, question.metric
    unfinished = out_of_cells(trials)
    contest = contest or Contest(trials, cells, metric)
    matrix = contest.finished
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
        "unfinished_trials": int(unfinished.sum()),
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
    everyone = contest.everyone
    pairs, rivals = contest.rivalries(folds)
    looks = matrix.looks(folds, question.repeats)
    result = standing(pairs, margin, confidence, looks)
    chosen = recommend(result.status, matrix.levels, matrix.parameters, matrix.seconds)
    recommended, best = int(chosen[0]), int(chosen[1])
    alone = len(rivals) == 1
    # of one that was trained to the end it is not said that the others do not matter, if these only lacked trainings
    cut_short = len(matrix.trials) == 1 and bool(unfinished.any())
    decided = bool(chosen[2]) and not cut_short
    low, high = shortfall_intervals(pairs, confidence, looks)
    comparisons = tuple(
        Comparison(
            trial=number,
            difference=float(pairs.mean[best, row]),
            interval=(0.0, 0.0) if alone else (float(low[row]), float(high[row])),
            probability_not_worse=float(result.probability_not_worse[row]),
            status=STATUSES[int(result.status[row])],
            against=None if alone else rivals[int(result.against[row])],
            cells=int(pairs.cells[int(result.against[row]), row]),
        )
        for row, number in enumerate(matrix.trials)
    )
    doubtful, rival, needed = None, None, None
    if not decided:
        doubtful = _in_question(matrix, result, recommended)
        rival = trial_to_readmit(matrix, pairs, rivals, question, looks, result)
        needed = more_cells_needed(matrix, question) if rival is None else question.planned - everyone.cells_of(rival)
        if cut_short:
            needed = int((question.planned - trials.loc[unfinished, "cells"]).clip(lower=0).sum())
    return Verdict(
        status="decided" if decided else "undecided",
        recommended=summary_of(trials, matrix, recommended, folds, metric),
        best=summary_of(trials, matrix, best, folds, metric),
        probability_not_worse=None if alone else comparisons[recommended].probability_not_worse,
        more_cells_needed=needed,
        comparisons=comparisons,
        in_question=None if doubtful is None else summary_of(trials, matrix, doubtful, folds, metric),
        rival=None if rival is None else summary_of(trials, everyone, everyone.trials.index(rival), folds, metric),
        smaller_trials=int((matrix.parameters < matrix.parameters[recommended]).sum()),
        **common,
    )


def out_of_cells(trials: pd.DataFrame) -> pd.Series:
    """Which trials the limit of trainings left unfinished; racing did not stop them."""
    reasons = trials.get("failure", pd.Series(None, index=trials.index, dtype=object))
    each = zip(trials["state"], reasons, strict=True)
    return pd.Series([facts.is_unfinished(*trial) for trial in each], index=trials.index, dtype=bool)


def _bounded(low: float, high: float, lowest: float, highest: float) -> tuple[float, float]:
    """An interval within what the metric can be; one that says nothing stays infinite."""
    if not math.isfinite(low) or not math.isfinite(high):
        return low, high
    return max(low, lowest), min(high, highest)


def summary_of(trials: pd.DataFrame, matrix: ScoreMatrix, row: int, folds: int, metric: str) -> TrialSummary:
    """A trial as the verdict shows it; ``row`` of the matrix, whose frames these are."""
    number = matrix.trials[row]
    record = trials.loc[trials["trial"] == number].iloc[0]
    scores = matrix.scores[row][~np.isnan(matrix.scores[row])]
    ends = matrix.own(folds).at(row).interval()
    low, high = sorted(direction(metric) * float(end) for end in ends)
    return TrialSummary(
        trial=number,
        adapter={name: _plain(record[name]) for name in ADAPTER_FIELDS if name in record.index},
        nuisance={name: _plain(record[name]) for name in _NUISANCE_COLUMNS if name in record.index},
        score_mean=direction(metric) * float(scores.mean()),
        score_interval=_bounded(low, high, *metric_named(metric).bounds),
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


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number that JSON knows."""
    return value.item() if isinstance(value, np.generic) else value
