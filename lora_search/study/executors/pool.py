"""Several workers elsewhere: who is free, who is at what, and who takes the place of one that died.

Where the workers are is a fleet's business: processes of this machine, or actors of a cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lora_search.errors import MachineError
from lora_search.spec import facts
from lora_search.study.executors.identity import Identity, difference
from lora_search.study.executors.messages import Answer, Begin, Broken, Hello, Lost, Order, Ready, Stepped
from lora_search.study.executors.tasks import Died, Event, Finished, Outcome, Refused, Task, Told
from lora_search.study.settings import tightest
from lora_search.training import Step

_FALSE_STARTS = 3
"""So many workers that die one after another before they are ready would do so for ever."""


class Fleet(Protocol):
    """Where workers are: how they are started, spoken to and ended. A worker is known by its place."""

    @property
    def places(self) -> int:
        """How many workers there are to be."""

    def start(self, place: int) -> None:
        """Start a worker, or another one where one was: in time it says ``Hello``, or why not."""

    def send(self, place: int, order: Order) -> None:
        """Give a worker something to do. Of one that is gone ``receive`` says so."""

    def receive(self) -> tuple[int, Answer]:
        """The next thing that any worker says; waits for it."""

    def close(self) -> None:
        """End all workers, whatever they are at; a second call does nothing."""


@dataclass
class _Place:
    """A worker, as the pool sees it: ``greeted`` has data and model, ``idle`` can take a task."""

    state: Literal["starting", "greeted", "beginning", "idle", "busy"] = "starting"
    task: Task | None = None


class Pool:
    """Has tasks done by a fleet (see ``Executor``).

    Args:
        fleet: the workers.
        ours: what this process has in hand, which every worker must have too.

    Raises:
        MachineError: none of the workers has.
    """

    def __init__(self, fleet: Fleet, ours: Identity) -> None:
        self._fleet = fleet
        self._ours = ours
        self._places = {place: _Place() for place in range(fleet.places)}
        self._waiting: deque[Task] = deque()
        self._refusals: list[Refused] = []
        self._kept: dict[str, Any] | None = None
        self._facts: dict[str, Any] | None = None
        self._false_starts = 0
        try:
            for place in self._places:
                fleet.start(place)
            while not any(place.state == "greeted" for place in self._places.values()):
                self._hear(_nobody)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        return max(1, len(self._places))

    def begin(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """As ``Executor.begin``. The first worker that is ready says how all compute; in how many processes is each
        machine's own affair."""
        self._kept = _without_lanes(kept)
        first = next(number for number, place in self._places.items() if place.state == "greeted")
        self._begin(first)
        while self._facts is None:
            self._hear(_nobody)
        return _without_lanes(self._facts)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self._assign()

    def events(self, told: Told) -> Iterator[Event]:
        while self._refusals or self._waiting or any(place.task is not None for place in self._places.values()):
            if self._refusals:
                yield self._refusals.pop(0)
                continue
            event = self._hear(told)
            if event is not None:
                yield event

    def close(self) -> None:
        self._fleet.close()

    # -- what workers say ----------------------------------------------------------------------------------------

    def _hear(self, told: Told) -> Event | None:
        """Wait for one thing, and act on it."""
        number, answer = self._fleet.receive()
        place = self._places.get(number)
        if place is None:  # it has been refused
            return None
        match answer:
            case Hello(theirs):
                reason = difference(self._ours, theirs)
                if reason is not None:
                    self._refuse(number, f"it {reason}")
                else:
                    place.state = "greeted"
                    if self._facts is not None:
                        self._begin(number)
                    elif self._kept is not None:
                        self._begin_another()
            case Ready(found):
                self._ready(number, found)
            case Stepped(step):
                if place.task is not None:
                    told(place.task, step)
            case Outcome():
                return self._finished(place, answer)
            case Refused(reason):
                self._refuse(number, reason)
            case Lost(reason):
                return self._lost(number, reason)
            case Broken(report):
                raise RuntimeError(f"a worker failed:\n{report}")
        return None

    def _ready(self, number: int, found: dict[str, Any]) -> None:
        self._false_starts = 0
        if self._facts is None:
            self._facts = dict(found)
            for other, place in self._places.items():
                if place.state == "greeted":
                    self._begin(other)
        for fact in (facts.DEVICE, facts.PRECISION):
            here, there = self._facts[fact.name], found[fact.name]
            if here != there:
                self._refuse(number, f"it must compute as the other workers do, in {here}, got {there}")
                return
        self._places[number].state = "idle"
        self._assign()

    def _finished(self, place: _Place, outcome: Outcome) -> Finished:
        task, place.task = place.task, None
        assert task is not None, "a worker answers what it was asked"
        assert self._facts is not None, "a worker that is asked is ready"
        place.state = "idle"
        kept = self._facts[facts.BUDGETS.name]
        if kept != outcome.budgets:
            self._facts[facts.BUDGETS.name] = tightest(kept, outcome.budgets)
        self._assign()
        return Finished(task, outcome)

    def _lost(self, number: int, reason: str) -> Died | None:
        place = self._places[number]
        if place.state in ("starting", "greeted", "beginning"):
            self._false_starts += 1
        if self._false_starts >= _FALSE_STARTS:
            raise MachineError(f"workers die before they begin: {reason}")
        self._places[number] = _Place()
        self._fleet.start(number)
        if self._kept is not None and self._facts is None:  # it may have been the one that was to say how all compute
            self._begin_another()
        return None if place.task is None else Died(place.task, reason)

    def _refuse(self, number: int, reason: str) -> None:
        """Leave a worker out. Nobody takes its place, for whoever did would be no other."""
        task = self._places.pop(number).task
        if task is not None:
            self._waiting.append(task)
        if not self._places:
            raise MachineError(f"no worker can be used: {reason}")
        self._refusals.append(Refused(reason))
        if self._kept is not None and self._facts is None:
            self._begin_another()
        self._assign()

    # -- what they are told --------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        self._places[number].state = "beginning"
        self._fleet.send(number, Begin({**(self._kept or {}), **_without_lanes(self._facts or {})}))

    def _begin_another(self) -> None:
        if not any(place.state == "beginning" for place in self._places.values()):
            for number, place in self._places.items():
                if place.state == "greeted":
                    self._begin(number)
                    return

    def _assign(self) -> None:
        for number, place in self._places.items():
            if self._waiting and place.state == "idle":
                place.state, place.task = "busy", self._waiting.popleft()
                self._fleet.send(number, place.task)


def _nobody(task: Task, step: Step) -> None:
    """Before a study begins nobody is told of steps."""


def _without_lanes(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != facts.LANES.name}
