"""A verdict: what a study says, as data and in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lora_search.statistics.beside import BaselineVerdict
from lora_search.statistics.standing import Status
from lora_search.statistics.wording import adapter_name, amount, capital, parameter_share, percent_sure


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
        difference: how much worse it scores than the best, over shared cells; metric units.
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
    were not trained to the end, which are not recommended, ``unfinished_trials`` those of them that the limit of
    trainings stopped, and not racing; ``baselines`` is what is no adapter, beside the recommended one.
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
    unfinished_trials: int = 0
    baselines: BaselineVerdict | None = None

    def sentence(self) -> str:
        """One sentence: the recommendation and how sure it is, or what is missing."""
        return verdict_sentence(self)

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
            "baselines": None if self.baselines is None else self.baselines.to_dict(),
        }


def verdict_sentence(verdict: Verdict) -> str:
    """One sentence for a verdict of any status."""
    recommended, best = verdict.recommended, verdict.best
    if recommended is None or best is None:
        return "No trial was trained to the end, so there is nothing to recommend yet."
    if len(verdict.comparisons) == 1 and (verdict.status == "decided" or verdict.unfinished_trials):
        return _alone(verdict, adapter_name(recommended.adapter))
    if verdict.status == "undecided":
        return _undecided(verdict, recommended, best)
    margin, sure = amount(verdict.margin, verdict.metric), percent_sure(verdict.probability_not_worse or 0.0)
    chosen, reference = distinct_names(recommended, best)
    if recommended.trial != best.trial:
        share = parameter_share(recommended.adapter_parameters, best.adapter_parameters)
        return (
            f"{capital(chosen)} is not worse than the best ({reference}) by more than {margin} ({sure}), with {share}."
        )
    unbeaten = f"({sure} that none beats it by more than {margin})"
    to_the_end = " trained to the end" if verdict.stopped_trials else ""
    if verdict.smaller_trials:
        return f"{capital(chosen)} scored best {unbeaten}, and every smaller adapter{to_the_end} is worse."
    return f"{capital(chosen)} scored best and is the smallest{to_the_end or ' compared'} {unbeaten}."


def _alone(verdict: Verdict, name: str) -> str:
    if not verdict.stopped_trials:
        return f"Only {name} was trained to the end: there is nothing to compare it with."
    if verdict.unfinished_trials:
        return (
            f"Only {name} was trained to the end, for want of trainings: about {verdict.more_cells_needed} more would"
            " tell how the others compare."
        )
    others = "the other adapter" if verdict.stopped_trials == 1 else f"each of {verdict.stopped_trials} other adapters"
    return f"{capital(name)} is what racing left: {others} was stopped when it had hardly a chance to be recommended."


def _undecided(verdict: Verdict, recommended: TrialSummary, best: TrialSummary) -> str:
    in_question = verdict.in_question or best
    chosen, reference = distinct_names(in_question, best)
    margin = amount(verdict.margin, verdict.metric)
    if verdict.rival is not None:
        chosen, reference = distinct_names(in_question, verdict.rival)
        question = f"whether {chosen} is within {margin} of {reference}, which racing stopped"
    elif in_question.trial == best.trial:
        question = f"whether any adapter beats {chosen}, the best so far, by more than {margin}"
    else:
        question = f"whether {chosen} is within {margin} of the best ({reference})"
    if verdict.more_cells_needed is None:
        return f"Cannot tell: more trainings on these data would not settle {question}."
    count = verdict.more_cells_needed
    return f"Cannot tell yet: about {count} more training{'s' if count != 1 else ''} would settle {question}."


def distinct_names(first: TrialSummary, second: TrialSummary) -> tuple[str, str]:
    """The names of two trials, told apart by alpha, learning rate or trial number if the adapters read the same."""
    names = adapter_name(first.adapter), adapter_name(second.adapter)
    if names[0] != names[1] or first.trial == second.trial:
        return names
    for key, label, source in (
        ("alpha", "alpha", "adapter"),
        ("scaling", "scaling", "adapter"),
        ("learning_rate", "learning rate", "nuisance"),
        ("dropout", "dropout", "nuisance"),
    ):
        one, other = getattr(first, source).get(key), getattr(second, source).get(key)
        if one != other:
            return f"{names[0]}, {label} {_short(one)}", f"{names[1]}, {label} {_short(other)}"
    return f"{names[0]}, trial {first.trial}", f"{names[1]}, trial {second.trial}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
