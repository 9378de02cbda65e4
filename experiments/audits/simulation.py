"""Runs a study as the package runs it, on a score table that is already full: nothing is trained, cells are uncovered.

Trials arrive in generations, each raced fold by fold over the first repeat; the finalists among those left get extra
repeats; the verdict is taken on what was uncovered. Used by the audits that need hundreds of studies: on simulated
scores (``calibration.py``) and on recorded ones (``replay.py``).

A score table has shape (trials, repeats * folds), one repeat after another, in metric units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lora_search.statistics import race, standing
from lora_search.statistics.budget import finalist_rows
from lora_search.statistics.levels import additive_scores
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.standing import recommend
from lora_search.statistics.stopped import rivalries, trial_to_readmit

GENERATION = 8
"""Trials asked for at once, as lora_search.study.schedule has it."""
DRAWS = 2000
"""Predictions of the full run made at each look."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rules:
    """What a study is run by: folds of the raced repeat, and margin (metric units) and confidence of the verdict."""

    folds: int
    margin: float
    confidence: float


@dataclass(frozen=True)
class RacedStudy:
    """What the package would have seen and said.

    Attributes:
        seen: the score table, NaN where no cell was trained.
        rows: trials trained to the end, ascending: those that racing left in, and those readmitted.
        raced_cells: cells trained before the finalists' extra repeats.
        chosen: the recommended trial, or the best so far.
        decided: whether the verdict is decided.
    """

    seen: Array
    rows: Array
    raced_cells: int
    chosen: int
    decided: bool

    @property
    def cells(self) -> int:
        return _count(self.seen)


def run_raced(scores: Array, parameters: Array, arrival: Array, rules: Rules, seed: int) -> RacedStudy:
    """One study: raced, finalists, verdict.

    Args:
        scores: the full table; its repeats after the first are what finalists may get.
        parameters: adapter parameters, (trials,).
        arrival: trials in the order in which the sampler asks for them.
        rules: of the study.
        seed: of racing's predictions.
    """
    seen, rows = _raced(scores, parameters, arrival, rules, seed)
    raced_cells = _count(seen)
    seen, rows = _with_finalists(seen, scores, parameters, rows, rules)
    chosen, decided = take_verdict(seen, parameters, rows, rules)
    return RacedStudy(seen, rows, raced_cells, chosen, decided)


def take_verdict(scores: Array, parameters: Array, rows: Array, rules: Rules) -> tuple[int, bool]:
    """(recommended, decided) of the trials in ``rows``; others that have cells were stopped."""
    matrix, everyone = _matrix(scores, parameters, rows, rules), _everyone(scores, parameters, rules)
    pairs, _ = rivalries(matrix, everyone, rules.folds)
    result = standing(pairs, rules.margin, rules.confidence, matrix.looks(rules.folds, planned=1))
    chosen, _, decided = recommend(result.status, additive_scores(matrix.scores), matrix.parameters, matrix.seconds)
    return int(rows[int(chosen)]), bool(decided)


def rates(figures: pd.DataFrame) -> dict[str, list[float]]:
    """Mean and Monte-Carlo standard error of every column, one row per study."""
    table = figures.astype(float)
    error = table.std(ddof=1) / np.sqrt(len(table))
    return {str(name): [round(float(table[name].mean()), 5), round(float(error[name]), 5)] for name in table}


def _count(seen: Array) -> int:
    return int((~np.isnan(seen)).sum())


def _matrix(scores: Array, parameters: Array, rows: Array, rules: Rules) -> ScoreMatrix:
    columns = tuple(divmod(column, rules.folds) for column in range(scores.shape[1]))
    numbers = tuple(int(row) for row in rows)
    return ScoreMatrix(numbers, columns, scores[rows], parameters[rows].astype(float), np.zeros(len(rows)))


def _everyone(scores: Array, parameters: Array, rules: Rules) -> ScoreMatrix:
    """Every trial that has a cell."""
    return _matrix(scores, parameters, np.flatnonzero(~np.isnan(scores).all(axis=1)), rules)


def _raced(scores: Array, parameters: Array, arrival: Array, rules: Rules, seed: int) -> tuple[Array, Array]:
    """The score table as racing leaves it, and the rows trained to the end."""
    seen = np.full_like(scores, np.nan)
    trials, out, spent = len(scores), list[int](), 0.0
    for first in range(0, trials, GENERATION):
        for fold in range(rules.folds):
            alive = [row for row in arrival[first : first + GENERATION] if row not in out]
            seen[alive, fold] = scores[alive, fold]
            if fold == rules.folds - 1:
                break
            look = race(
                _matrix(seen, parameters, np.sort(arrival[: first + GENERATION]), rules),
                planned=rules.folds,
                trials=trials,
                folds=rules.folds,
                margin=rules.margin,
                confidence=rules.confidence,
                eliminated=out,
                spent=spent,
                draws=DRAWS,
                seed=seed,
            )
            spent, out = look.spent, out + [loss.trial for loss in look.eliminated]
    return seen, np.array([row for row in range(trials) if row not in out])


def _with_finalists(seen: Array, scores: Array, parameters: Array, rows: Array, rules: Rules) -> tuple[Array, Array]:
    """What stopped trials lack that may be the best, and extra repeats, as the scheduler grants them: until settled,
    spent or hopeless. The score table then, and the rows trained to the end."""
    repeats = scores.shape[1] // rules.folds
    for extra in range(repeats):
        seen, rows = _readmitted(seen, scores, parameters, rows, rules)
        matrix = _matrix(seen, parameters, rows, rules)
        chosen = finalist_rows(
            matrix, folds=rules.folds, margin=rules.margin, confidence=rules.confidence, repeats=repeats
        )
        if not chosen or extra == repeats - 1:
            break
        finalists = rows[list(chosen)]
        repeat = int((~np.isnan(seen[finalists])).sum(axis=1).min()) // rules.folds
        columns = slice(repeat * rules.folds, (repeat + 1) * rules.folds)
        seen[finalists, columns] = scores[finalists, columns]
    return seen, rows


def _readmitted(seen: Array, scores: Array, parameters: Array, rows: Array, rules: Rules) -> tuple[Array, Array]:
    while True:
        matrix = _matrix(seen, parameters, rows, rules)
        pairs, numbers = rivalries(matrix, _everyone(seen, parameters, rules), rules.folds)
        looks = matrix.looks(rules.folds, planned=1)
        found = trial_to_readmit(matrix, pairs, numbers, rules.margin, rules.confidence, looks)
        if found is None:
            return seen, rows
        seen[found, : rules.folds] = scores[found, : rules.folds]
        rows = np.sort([*rows, found])
