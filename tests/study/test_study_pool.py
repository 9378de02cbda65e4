"""The pool, told by a fleet that follows a script: who gets what, who is left out, who takes whose place."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from lora_search.errors import MachineError
from lora_search.spec import AdapterSpec, Nuisance, facts
from lora_search.store.records import CellKey
from lora_search.study.crew import Crew, Together
from lora_search.study.executors.identity import Identity, difference
from lora_search.study.executors.messages import Begin, Broken, Hello, Lost, Ready, Stepped
from lora_search.study.executors.pool import Pool
from lora_search.study.executors.tasks import Died, Finished, Outcome, Pack, Refused, Training
from lora_search.study.progress import Silent
from lora_search.training import Step

OURS = Identity({"torch": "2.13"}, "code", "data", "model")
FACTS = {"precision": "fp32", "device": "cpu", "lanes": 2, "budgets": {"token_budget": 1024, "checkpointing": False}}
TOLD = {name: value for name, value in FACTS.items() if name != "lanes"}


def pack(number: int, work: float = 1.0) -> Pack:
    adapter = AdapterSpec(rank=1, alpha=1.0, targets="all-linear", layers="all")
    training = Training(CellKey(number, 0, 0), adapter, Nuisance(learning_rate=0.1))
    return Pack((training,), number, f"trial {number}", work)


def outcome(budget: int = 1024) -> Outcome:
    return Outcome({"token_budget": budget, "checkpointing": False})


def step(at: int = 1, loss: float = 1.0) -> Step:
    return Step(at, 10, 1, 2, 100, loss, {CellKey(0, 0, 0): loss})


class Scripted:
    """Says what it was given to say, and writes down what it is told."""

    def __init__(self, places: int, *script: tuple[int, Any]) -> None:
        self.places = places
        self.script = deque(script)
        self.started: list[int] = []
        self.sent: list[tuple[int, Any]] = []
        self.closed = False

    def start(self, place: int) -> None:
        self.started.append(place)

    def send(self, place: int, order: Any) -> None:
        self.sent.append((place, order))

    def receive(self) -> tuple[int, Any]:
        return self.script.popleft()

    def close(self) -> None:
        self.closed = True


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.packs: list[tuple[str, float]] = []
        self.steps: list[Step] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def pack(self, title: str, work: float) -> None:
        self.packs.append((title, work))

    def step(self, step: Step) -> None:
        self.steps.append(step)


def begun(*script: tuple[int, Any]) -> tuple[Pool, Scripted]:
    """Two workers, both ready, and what they say next."""
    fleet = Scripted(2, (0, Hello(OURS)), (0, Ready(FACTS)), (1, Hello(OURS)), *script)
    pool = Pool(fleet, OURS)
    assert pool.begin({"lanes": 16, "precision": "fp32"}) == TOLD
    fleet.sent.clear()
    return pool, fleet


def nobody(task: Any, step: Step) -> None:
    pass


def test_the_first_that_is_ready_says_how_all_compute():
    fleet = Scripted(2, (1, Hello(OURS)), (0, Hello(OURS)), (1, Ready(FACTS)), (0, Ready(FACTS)), (0, outcome()))
    pool = Pool(fleet, OURS)
    assert fleet.started == [0, 1]
    assert pool.begin({"lanes": 16, "found": 1}) == TOLD, "how many lanes there are is each machine's own affair"
    assert fleet.sent == [(1, Begin({"found": 1})), (0, Begin({"found": 1} | TOLD))]


def test_those_who_are_free_get_what_waits_and_each_task_ends_once():
    pool, fleet = begun((1, Ready(FACTS)), (1, outcome()), (0, outcome()), (1, outcome(512)))
    tasks = [pack(number) for number in range(3)]
    for task in tasks:
        pool.submit(task)
    assert fleet.sent == [(0, tasks[0])], "the other one is not ready"
    finished = [event.task.number for event in pool.events(nobody)]
    assert finished == [1, 0, 2]
    assert [order for order in fleet.sent if order[1] in tasks] == [(0, tasks[0]), (1, tasks[1]), (1, tasks[2])]


def test_a_worker_that_comes_later_begins_with_what_was_found_by_then():
    pool, fleet = begun((0, outcome(512)), (1, Lost("killed")), (1, Hello(OURS)), (0, outcome()))
    pool.submit(pack(0))
    pool.submit(pack(1))
    assert len(list(pool.events(nobody))) == 2
    began = [order.kept["budgets"]["token_budget"] for _, order in fleet.sent if isinstance(order, Begin)]
    assert began == [1024, 512]


def test_of_a_worker_that_dies_only_its_own_task_is_lost():
    pool, fleet = begun((1, Ready(FACTS)), (0, Stepped(step())), (0, Lost("killed")), (1, outcome()), (1, outcome()))
    first, second = pack(0), pack(1)
    steps = []
    pool.submit(first)
    pool.submit(second)
    events = []
    for event in pool.events(lambda task, step: steps.append((task, step.step))):
        events.append(event)
        if isinstance(event, Died):
            pool.submit(event.task)
    assert [type(event) for event in events] == [Died, Finished, Finished]
    assert events[0].task is first
    assert events[2].task is first
    assert steps == [(first, 1)]
    assert fleet.started == [0, 1, 0]


def test_workers_that_die_before_they_begin_are_not_started_for_ever():
    dead = [(0, Lost("it ended with exit code 1: no module"))] * 3
    fleet = Scripted(1, *dead)
    with pytest.raises(MachineError, match="workers die before they begin: it ended with exit code 1: no module"):
        Pool(fleet, OURS)
    assert fleet.closed
    assert fleet.started == [0, 0, 0]


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (Identity({"torch": "2.6"}, "code", "data", "model"), "must run torch 2.13 as this process does, got 2.6"),
        (Identity({}, "code", "data", "model"), "must run torch 2.13 as this process does, got none"),
        (Identity(OURS.packages, "other", "data", "model"), "must load the code that this process loads"),
        (Identity(OURS.packages, "code", "other", "model"), "must load the data that this process loads"),
        (Identity(OURS.packages, "code", "data", "other"), "must load the model that this process loads"),
    ],
)
def test_who_would_compute_something_else_is_left_out(theirs, reason):
    assert difference(OURS, OURS) is None
    fleet = Scripted(2, (0, Hello(theirs)), (1, Hello(OURS)), (1, Ready(FACTS)), (1, outcome()))
    pool = Pool(fleet, OURS)
    pool.begin({})
    assert pool.workers == 1
    pool.submit(pack(0))
    refused, finished = pool.events(nobody)
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    assert isinstance(finished, Finished)
    with pytest.raises(MachineError, match="no worker can be used: it must"):
        Pool(Scripted(1, (0, Hello(theirs))), OURS)


def test_who_computes_on_another_device_is_left_out_and_its_task_is_not():
    fleet = Scripted(
        2, (0, Hello(OURS)), (0, Ready(FACTS)), (1, Hello(OURS)), (1, Ready(FACTS | {"device": "cuda"})), (0, outcome())
    )
    pool = Pool(fleet, OURS)
    pool.begin({})
    pool.submit(pack(0))
    refused, finished = pool.events(nobody)
    assert refused == Refused("it must compute as the other workers do, in cpu, got cuda")
    assert isinstance(finished, Finished)


def test_the_one_that_was_to_say_how_all_compute_dies():
    fleet = Scripted(
        2, (0, Hello(OURS)), (1, Hello(OURS)), (0, Lost("killed")), (1, Ready(FACTS)), (0, Hello(OURS)), (1, outcome())
    )
    pool = Pool(fleet, OURS)
    assert pool.begin({}) == TOLD
    assert [place for place, order in fleet.sent] == [0, 1]


def test_a_bug_in_a_worker_is_a_bug_here():
    pool, _ = begun((0, Broken("Traceback: of the worker")))
    pool.submit(pack(0))
    with pytest.raises(RuntimeError, match="a worker failed:\nTraceback: of the worker"):
        list(pool.events(nobody))


# -- the crew -----------------------------------------------------------------------------------------------------


def test_a_task_is_done_anew_twice_and_then_there_is_one_clear_line():
    deaths = [(0, Lost("killed")), (0, Hello(OURS)), (0, Ready(FACTS))] * 2
    told = Notes()
    pool, _ = begun(*deaths, (0, outcome()))
    (done,) = Crew(pool, told).done([pack(4)])
    assert done[0].number == 4
    assert told.notes == ["a worker died over trial 4, which begins anew: killed"] * 2

    pool, _ = begun(*deaths, (0, Lost("killed")))
    with pytest.raises(MachineError, match="workers died 3 times over trial 4: killed; every training that was"):
        list(Crew(pool, Notes()).done([pack(4)]))


def test_several_at_once_are_told_as_one():
    told = Notes()
    pool, _ = begun(
        (1, Ready(FACTS)),
        (0, Stepped(step(5, loss=3.0))),
        (1, Stepped(step(2, loss=1.0))),
        (0, outcome()),
        (1, outcome()),
    )
    crew = Crew(pool, told)
    assert [task.number for task, _ in crew.done([pack(0, 3.0), pack(1, 1.0)])] == [0, 1]
    assert told.packs == [("trials 0, 1 / fold 1, in 2 packs", 4.0)]
    # of work 3 and 1 they have done 5/10 and 2/10
    assert [(heard.step, heard.steps, heard.loss) for heard in told.steps] == [(3, 10, 3.0), (4, 10, 2.0)]


def test_what_begins_anew_has_done_nothing():
    tasks = [pack(0), pack(1)]
    together = Together(tasks)
    assert together.hear(tasks[0], step(10)).step == 5
    together.begin_again(tasks[0])
    assert together.hear(tasks[1], step(4)).step == 2
    together.end(tasks[1])
    assert together.hear(tasks[0], step(10)).step == 10


def test_facts_are_named_as_the_pool_knows_them():
    assert {facts.LANES.name, facts.DEVICE.name, facts.PRECISION.name, facts.BUDGETS.name} == set(FACTS)
