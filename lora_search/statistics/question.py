"""What is asked of the scores of a study: which is the smallest adapter that is not worse than the best, by how much,
how surely, and from how many folds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_search.errors import ExperimentError, Mistake
from lora_search.metrics import has_own_unit
from lora_search.spec import Experiment


@dataclass(frozen=True)
class Question:
    """What a verdict answers.

    Attributes:
        metric: its name, which is the column of the cells that holds the score.
        margin: accepted loss against the best, in metric units: 0.01 is one point. Of an error in the unit of the label
            there may be any number of these.
        confidence: probability that a claim needs, above 0.5.
        folds: the k of k-fold.
        repeats: that every trial is to have.

    Raises:
        ExperimentError: margin, confidence or folds out of range.
    """

    metric: str
    margin: float
    confidence: float
    folds: int
    repeats: int = 1

    def __post_init__(self) -> None:
        mistakes = []
        if self.folds < 2:
            mistakes.append(Mistake("must be at least 2", "cv.folds", f"{self.folds}"))
        if has_own_unit(self.metric):
            if not 0.0 <= self.margin < math.inf:
                mistakes.append(Mistake("must be a number of at least 0", "verdict.margin", f"{self.margin:g}"))
        elif not 0.0 <= self.margin < 1.0:
            mistakes.append(Mistake("must be at least 0 and below 1", "verdict.margin", f"{self.margin:g}"))
        if not 0.5 < self.confidence < 1.0:
            mistakes.append(Mistake("must be above 0.5 and below 1", "verdict.confidence", f"{self.confidence:g}"))
        if mistakes:
            raise ExperimentError(mistakes)

    @classmethod
    def of(cls, experiment: Experiment, margin: float | None = None, confidence: float | None = None) -> Question:
        """An experiment's own, or the same with another margin or confidence."""
        asked, cv = experiment.verdict, experiment.cv
        return cls(
            asked.metric,
            asked.margin if margin is None else margin,
            asked.confidence if confidence is None else confidence,
            cv.folds,
            cv.repeats,
        )

    @property
    def planned(self) -> int:
        """Cells that every trial is to have."""
        return self.folds * self.repeats
