"""What is asked of a worker and what comes back, as pure data: it crosses processes and machines.

A task names trainings; whoever holds the data and the model knows what they are. What a training comes to depends on
what it is alone, up to rounding, so any worker may do any task, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lora_search.spec import AdapterSpec, Nuisance
from lora_search.spec.facts import Budgets
from lora_search.store.records import BaselineResult, CellKey, CellResult
from lora_search.study.baselines import Part
from lora_search.training import Step


@dataclass(frozen=True)
class Training:
    """One training of an adapter.

    Attributes:
        key: which; a fold past the last one leaves nothing out but the hold-out, which it predicts.
        adapter, nuisance: the trial.
        may_stall: whether it ends early where it teaches nothing.
        adapted: False for the base as it is.
    """

    key: CellKey
    adapter: AdapterSpec
    nuisance: Nuisance
    may_stall: bool = False
    adapted: bool = True


@dataclass(frozen=True)
class Pack:
    """Trainings to be computed together.

    Attributes:
        trainings: of one lowest layer, best.
        number: for the record; -1 of what is no cell of the study.
        title, work: for whoever is told.
    """

    trainings: tuple[Training, ...]
    number: int
    title: str
    work: float


@dataclass(frozen=True)
class Measuring:
    """What the largest step of a training of some trials holds.

    Attributes:
        trials: number, adapter and nuisance of each.
    """

    trials: tuple[tuple[int, AdapterSpec, Nuisance], ...]
    title: str = "what a step holds in memory"
    work: float = 0.0


Task = Pack | Part | Measuring
Told = Callable[[Task, Step], None]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a task.

    Attributes:
        cells: of a pack, in its order.
        baselines: of a part.
        step_bytes: of a measuring, by trial.
        stalled: whether a training ended early.
        no_room: whether memory had no room for a baseline.
        notes: what the user should know about how it was computed, as sentences.
        budgets: what memory was found to allow.
    """

    budgets: Budgets
    notes: tuple[str, ...] = ()
    cells: tuple[CellResult, ...] = ()
    baselines: tuple[BaselineResult, ...] = ()
    step_bytes: Mapping[int, int] = field(default_factory=dict)
    stalled: bool = False
    no_room: bool = False


@dataclass(frozen=True, eq=False)
class Finished:
    """A task is done."""

    task: Task
    outcome: Outcome


@dataclass(frozen=True, eq=False)
class Died:
    """The worker that was at a task is gone, and nothing came of it. Another worker takes its place.

    Attributes:
        task: to be submitted again.
        reason: as a sentence without its end.
    """

    task: Task
    reason: str


@dataclass(frozen=True)
class Refused:
    """A worker cannot be one of this study, and is not used."""

    reason: str


Event = Finished | Died | Refused


class Executor(Protocol):
    """Has tasks done by workers that hold the model and the data. It records nothing and decides nothing."""

    @property
    def workers(self) -> int:
        """How many tasks can be under way at the same time, at least 1."""

    def begin(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Have the workers compute as the study does; once, before anything is submitted.

        Args:
            kept: the study's facts; none of a study that begins.

        Returns:
            The facts of how they compute, as JSON values by name.

        Raises:
            InputError: no worker can.
        """

    def submit(self, task: Task) -> None:
        """Have a task done, when a worker is free."""

    def events(self, told: Told) -> Iterator[Event]:
        """What happens, until everything submitted is finished or has died; more may be submitted in between.

        Args:
            told: called with every step of every task, in between.

        Raises:
            InputError: no worker is left.
        """

    def close(self) -> None:
        """End the workers, whatever they are at; a second call does nothing."""
