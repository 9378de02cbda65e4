"""What a study finds out once and keeps: the name and the type of every fact, in one place.

A study keeps facts as JSON by name; whoever reads or writes one does it through its ``Fact`` here, so that a name is
spelled once and a type checker knows what comes back. The names are those of studies already recorded, and stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

Value = TypeVar("Value")
Cells = Collection[tuple[int, int, int]]
"""Trainings by trial, repeat and fold."""


OUT_OF_CELLS = "the study has trained all the cells it may"
"""Why a trial ended that only the limit of trainings left unfinished."""


def is_unfinished(state: str, reason: str | None) -> bool:
    """Whether only the limit of trainings stopped a trial."""
    return state == "pruned" and reason == OUT_OF_CELLS


def is_open(state: str, reason: str | None) -> bool:
    """Whether a trial may go on where there is room: one under way, or one that only the limit stopped."""
    return state == "running" or is_unfinished(state, reason)


def _identity(value: Any) -> Any:
    return value


def _unaffected(value: Any, lost: Cells, planned: int) -> Any:
    return value


@dataclass(frozen=True)
class Fact(Generic[Value]):
    """One thing a study keeps.

    Attributes:
        name: under which it is kept.
        from_json, to_json: between its value and what JSON can say; the value itself by default.
        without: what is left of its value when cells are lost and are to be trained again, given the value, the cells
            and the repeats that were planned; by default all of it, as of what follows from the same cells again.
    """

    name: str
    from_json: Callable[[Any], Value] = _identity
    to_json: Callable[[Value], Any] = _identity
    without: Callable[[Value, Cells, int], Value] = _unaffected

    def of(self, facts: Mapping[str, Any]) -> Value | None:
        """The value among a study's ``facts``; None where it is not known yet."""
        kept = facts.get(self.name)
        return None if kept is None else self.from_json(kept)


class Budgets(TypedDict):
    """What memory was found to allow: padded tokens of a micro-batch, and whether layers are computed twice."""

    token_budget: int
    checkpointing: bool


class Looks(TypedDict):
    """What racing has spent of its risk, and whom it stopped at every rung it looked at, by the rung's name."""

    spent: float
    looks: dict[str, list[dict[str, Any]]]


class Point(TypedDict):
    """An adapter as a choice from the lists of an experiment file."""

    rank: int
    alpha_over_rank: float
    targets: str
    layers: str
    use_dora: NotRequired[bool]
    rank_pattern: NotRequired[str]


Ending = Literal["complete", "pruned", "failed"]
WantedSetting = tuple[int, Point | None, float | None]
"""(trial, adapter, learning rate): None where the sampler, and the model of the rates, are to choose."""
Finished = tuple[int, Ending, str | None]
"""(trial, how it ended, why)."""


class RecordedRound(TypedDict):
    """A round of a study that looks for learning rates: the last one, recorded before it begins.

    ``spent`` is what racing has spent of its risk, ``settings`` are to be asked for, ``finished`` to be closed,
    ``cells`` (trial, repeat, fold) to be trained.
    """

    number: int
    spent: float
    settings: list[WantedSetting]
    cells: list[tuple[int, int, int]]
    finished: list[Finished]


class FinalistRequests(TypedDict):
    """The cells asked for after the trials, one list of (trial, repeat, fold) per request, and the number of trials."""

    trials: int
    requests: list[list[list[int]]]


@dataclass(frozen=True)
class HeadAlone:
    """One training of no adapter, at the learning rate of a trial.

    Attributes:
        trial: whose learning rate, in studies of before the head had rates of its own; -1 since, and of a base
            without a head to train, which is scored as it is.
        repeat, fold: which examples.
        scores: on the fold; empty where it failed.
        failure: why it failed; None otherwise.
    """

    trial: int
    repeat: int
    fold: int
    scores: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class HoldoutScore:
    """What the hold-out said of a trial trained on everything else.

    Attributes:
        trial: its number.
        scores: on the hold-out; empty where that training failed, and the hold-out was not looked at.
        failure: why it failed; None otherwise.
    """

    trial: int
    scores: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


def _scores(kept: Mapping[str, float | None]) -> dict[str, float]:
    """JSON has no NaN: what is not finite was kept as null."""
    return {name: math.nan if score is None else float(score) for name, score in kept.items()}


def _heads(kept: Iterable[Mapping[str, Any]]) -> tuple[HeadAlone, ...]:
    keys = ("trial", "repeat", "fold", "failure")
    return tuple(
        HeadAlone(
            trial=cell["trial"],
            repeat=cell["repeat"],
            fold=cell["fold"],
            scores=_scores({name: score for name, score in cell.items() if name not in keys}),
            failure=cell.get("failure"),
        )
        for cell in kept
    )


def _kept_heads(cells: Iterable[HeadAlone]) -> list[dict[str, Any]]:
    return [
        {"trial": cell.trial, "repeat": cell.repeat, "fold": cell.fold, **cell.scores}
        | ({} if cell.failure is None else {"failure": cell.failure})
        for cell in cells
    ]


def _kept_holdout(score: HoldoutScore) -> dict[str, Any]:
    failure = {} if score.failure is None else {"failure": score.failure}
    return {"trial": score.trial, "scores": dict(score.scores), **failure}


def _round_without(found: RecordedRound, lost: Cells, planned: int) -> RecordedRound:
    """What was lost is trained with the round that is there, and the trials it was lost from stay open till then."""
    again = {cell for cell in lost if cell[1] < planned}
    trials = {trial for trial, *_ in again}
    return {
        **found,
        "cells": [*found["cells"], *sorted(again - {(t, r, f) for t, r, f in found["cells"]})],
        "finished": [ending for ending in found["finished"] if ending[0] not in trials],
    }


def _requests_without(found: FinalistRequests, lost: Cells, planned: int) -> FinalistRequests:
    """Up to the first request that a lost cell was part of: a run begins with the last request, and asks for what
    follows from it anew. The first one rests on all cells of the trials themselves."""
    of_the_trials = any(repeat < planned for _, repeat, _ in lost)
    for number, request in enumerate(found["requests"], 1):
        if of_the_trials or any((trial, repeat, fold) in lost for trial, repeat, fold in request):
            return {"trials": found["trials"], "requests": found["requests"][:number]}
    return found


PRECISION: Fact[Literal["fp32", "bf16"]] = Fact("precision")
"""What the frozen base computes in."""

DEVICE: Fact[str] = Fact("device")
"""The kind of device (``cpu``, ``cuda``) on which ``LANES`` and ``BUDGETS`` were found."""

LANES: Fact[int] = Fact("lanes")
"""Processes that compute micro-batches at the same time."""

BUDGETS: Fact[Budgets] = Fact("budgets")

DATA_FINGERPRINT: Fact[str] = Fact("data fingerprint")
MODEL_FINGERPRINT: Fact[str] = Fact("model fingerprint")

RACING: Fact[Looks] = Fact("racing")

ROUND: Fact[RecordedRound] = Fact("round", without=_round_without)

FINALISTS: Fact[FinalistRequests] = Fact("finalist repeats", without=_requests_without)

HEAD_ALONE: Fact[tuple[HeadAlone, ...]] = Fact("head alone", _heads, _kept_heads)
"""What no adapter at all scored, one training per fold, in studies of before that was a baseline."""

EXPLAINED: Fact[dict[str, list[float]]] = Fact("explained variance")
"""By module, the shares of its inputs' variance that their first principal components explain, falling: what ranks by
EVA follow from."""

ADAPTERS: Fact[int] = Fact("adapters")
"""How many different adapters there are, of a space in which two choices may be one; of no other."""

COMPARED: Fact[int] = Fact("compared adapters")
"""How many adapters a study compares that looks for the rate of each; of no other."""

STEP_BYTES: Fact[dict[str, int]] = Fact("step bytes")
"""What the largest step of a training of some trials holds (see ``training.footprint``), by their numbers."""

HOLDOUT: Fact[HoldoutScore] = Fact(
    "holdout", lambda kept: HoldoutScore(kept["trial"], _scores(kept["scores"]), kept.get("failure")), _kept_holdout
)

ALL: tuple[Fact[Any], ...] = (
    PRECISION,
    DEVICE,
    LANES,
    BUDGETS,
    DATA_FINGERPRINT,
    MODEL_FINGERPRINT,
    RACING,
    ROUND,
    FINALISTS,
    HEAD_ALONE,
    EXPLAINED,
    ADAPTERS,
    COMPARED,
    STEP_BYTES,
    HOLDOUT,
)
