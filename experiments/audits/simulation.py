"""Runs a study as the package runs it, on a score table that is already full: nothing is trained, cells are uncovered.

Trials arrive in generations, each raced fold by fold over the first repeat; the finalists among those left get extra
repeats; the verdict is taken on what was uncovered. Used by the audits that need hundreds of studies: on simulated
examples (``calibration.py``) and on recorded scores (``replay.py``).

A score table has shape (trials, repeats * folds), one repeat after another, in metric units. Where the scores of single
examples are given with it, trials are compared by these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lora_search.statistics import ExampleScores, Question, race, standing
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


def run_raced(
    scores: Array, parameters: Array, arrival: Array, rules: Question, seed: int, examples: ExampleScores | None = None
) -> RacedStudy:
    """One study: raced, finalists, verdict.

    Args:
        scores: the full table; its repeats after the first are what finalists may get.
        parameters: adapter parameters, (trials,).
        arrival: trials in the order in which the sampler asks for them.
        rules: of the study.
        seed: of racing's predictions.
        examples: what the score table is made of.
    """
    study = _Study(scores, parameters, rules, examples)
    seen, rows = _raced(study, arrival, seed)
    raced_cells = _count(seen)
    seen, rows = _with_finalists(study, seen, rows)
    chosen, decided = study.verdict(seen, rows)
    return RacedStudy(seen, rows, raced_cells, chosen, decided)


def take_verdict(
    scores: Array, parameters: Array, rows: Array, rules: Question, examples: ExampleScores | None = None
) -> tuple[int, bool]:
    """(recommended, decided) of the trials in ``rows``; others that have cells were stopped."""
    return _Study(scores, parameters, rules, examples).verdict(scores, rows)


def rates(figures: pd.DataFrame) -> dict[str, list[float]]:
    """Mean and Monte-Carlo standard error of every column, one row per study."""
    table = figures.astype(float)
    error = table.std(ddof=1) / np.sqrt(len(table))
    return {str(name): [round(float(table[name].mean()), 5), round(float(error[name]), 5)] for name in table}


def _count(seen: Array) -> int:
    return int((~np.isnan(seen)).sum())


@dataclass(frozen=True, eq=False)
class _Study:
    """What is known to the simulation, of which a run sees a part: tables called ``seen`` are NaN where it does not."""

    scores: Array
    parameters: Array
    rules: Question
    examples: ExampleScores | None

    @property
    def folds(self) -> int:
        return self.rules.folds

    def matrix(self, seen: Array, rows: Array) -> ScoreMatrix:
        columns = tuple(divmod(column, self.folds) for column in range(seen.shape[1]))
        examples = None
        if self.examples is not None:
            sources = np.where(np.isnan(seen[rows]), -1, rows[:, None])
            examples = self.examples.composed(sources)
        sizes = self.parameters[rows].astype(float)
        return ScoreMatrix(tuple(map(int, rows)), columns, seen[rows], sizes, np.zeros(len(rows)), examples=examples)

    def everyone(self, seen: Array) -> ScoreMatrix:
        """Every trial that has a cell."""
        return self.matrix(seen, np.flatnonzero(~np.isnan(seen).all(axis=1)))

    def verdict(self, seen: Array, rows: Array) -> tuple[int, bool]:
        """(recommended, decided) of the trials in ``rows``; others that have cells were stopped."""
        matrix = self.matrix(seen, rows)
        pairs, _ = rivalries(matrix, self.everyone(seen), self.folds)
        result = standing(pairs, self.rules.margin, self.rules.confidence, matrix.looks(self.folds, planned=1))
        chosen, _, decided = recommend(result.status, additive_scores(matrix.scores), matrix.parameters, matrix.seconds)
        return int(rows[int(chosen)]), bool(decided)


def _raced(study: _Study, arrival: Array, seed: int) -> tuple[Array, Array]:
    """The score table as racing leaves it, and the rows trained to the end."""
    scores, rules = study.scores, study.rules
    seen = np.full_like(scores, np.nan)
    trials, out, spent = len(scores), list[int](), 0.0
    for first in range(0, trials, GENERATION):
        for fold in range(rules.folds):
            alive = [row for row in arrival[first : first + GENERATION] if row not in out]
            seen[alive, fold] = scores[alive, fold]
            if fold == rules.folds - 1:
                break
            look = race(
                study.matrix(seen, np.sort(arrival[: first + GENERATION])),
                rules,
                trials=trials,
                eliminated=out,
                spent=spent,
                draws=DRAWS,
                seed=seed,
            )
            spent, out = look.spent, out + [loss.trial for loss in look.eliminated]
    return seen, np.array([row for row in range(trials) if row not in out])


def _with_finalists(study: _Study, seen: Array, rows: Array) -> tuple[Array, Array]:
    """What stopped trials lack that may be the best, and extra repeats, as the scheduler grants them: until settled,
    spent or hopeless. The score table then, and the rows trained to the end."""
    scores, rules = study.scores, study.rules
    repeats = scores.shape[1] // rules.folds
    for extra in range(repeats):
        seen, rows = _readmitted(study, seen, rows)
        matrix = study.matrix(seen, rows)
        chosen = finalist_rows(matrix, rules, repeats=repeats)
        if not chosen or extra == repeats - 1:
            break
        finalists = rows[list(chosen)]
        repeat = int((~np.isnan(seen[finalists])).sum(axis=1).min()) // rules.folds
        columns = slice(repeat * rules.folds, (repeat + 1) * rules.folds)
        seen[finalists, columns] = scores[finalists, columns]
    return seen, rows


def _readmitted(study: _Study, seen: Array, rows: Array) -> tuple[Array, Array]:
    scores, rules = study.scores, study.rules
    while True:
        matrix = study.matrix(seen, rows)
        pairs, numbers = rivalries(matrix, study.everyone(seen), rules.folds)
        looks = matrix.looks(rules.folds, planned=1)
        found = trial_to_readmit(matrix, pairs, numbers, rules, looks)
        if found is None:
            return seen, rows
        seen[found, : rules.folds] = scores[found, : rules.folds]
        rows = np.sort([*rows, found])
