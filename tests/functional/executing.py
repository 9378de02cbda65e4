"""What every executor must do, as one suite; see ``test_functional_executors`` and ``test_functional_ray``.

A class of the contract has the fixture ``executor``; where workers can be killed ``fleet`` instead, of two, and
``kill``, of the one that gets the first task.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from tiny_world import ASKED, RECORDED, without_time

from lora_search.spec import AdapterSpec, Nuisance, facts
from lora_search.store.reader import read_predictions, read_study
from lora_search.store.records import CellKey
from lora_search.study import prepare
from lora_search.study.baselines import baseline_parts
from lora_search.study.executors.identity import identity_of
from lora_search.study.executors.pool import Pool
from lora_search.study.executors.tasks import Died, Executor, Finished, Measuring, Outcome, Pack, Task, Training
from lora_search.study.executors.worker import Worker
from lora_search.training import Engine

SPEC = {"data": {"holdout": 0.2}, "training": {"epochs": 4}}
ADAPTER = AdapterSpec(rank=2, alpha=4.0, targets="query+value", layers="all")
NUISANCE = Nuisance(learning_rate=0.02)


def pack(number: int, *keys: tuple[int, int, int], adapted: bool = True) -> Pack:
    trainings = tuple(Training(CellKey(*key), ADAPTER, NUISANCE, adapted=adapted) for key in keys)
    return Pack(trainings, number, f"pack {number}", 3.0 * len(keys))


def tasks_of(prepared: Any) -> list[Task]:
    """One of every kind."""
    on_everything = (0, 0, prepared.experiment.cv.folds)
    return [
        pack(0, (0, 0, 0), (1, 0, 0)),
        pack(1, (0, 0, 1)),
        pack(-1, on_everything),
        pack(-1, (-1, 0, 0), adapted=False),
        *baseline_parts(prepared),
        Measuring(((0, ADAPTER, NUISANCE),)),
    ]


def assert_same_outcome(one: Outcome, other: Outcome) -> None:
    assert (one.budgets, one.notes, one.step_bytes) == (other.budgets, other.notes, other.step_bytes)
    pairs = [
        *zip(one.cells, other.cells, strict=True),
        *((mine.result, theirs.result) for mine, theirs in zip(one.baselines, other.baselines, strict=True)),
    ]
    for mine, theirs in pairs:
        assert (mine.key, mine.state, mine.pack, mine.pack_cells) == (
            theirs.key,
            theirs.state,
            theirs.pack,
            theirs.pack_cells,
        )
        assert without_nan(mine.scores) == without_nan(theirs.scores)
        np.testing.assert_array_equal(mine.probabilities, theirs.probabilities)
        np.testing.assert_array_equal(mine.examples, theirs.examples)


def without_nan(scores: Any) -> str:
    return json.dumps(dict(scores))


class ExecutorContract:
    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, world: Any) -> Any:
        return prepare(world.experiment(**SPEC))

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, prepared: Any) -> list[Outcome]:
        """What a worker comes to that is asked in this process."""
        worker = Worker(prepared, Engine, lanes=1)
        worker.begin({})
        return [worker.work(task, lambda step: None) for task in tasks_of(prepared)]

    @pytest.fixture(scope="class")
    @classmethod
    def began(cls, executor: Executor) -> dict[str, Any]:
        return executor.begin({})

    def test_it_says_how_it_computes(self, began: dict[str, Any]) -> None:
        assert facts.PRECISION.of(began) == "fp32"
        assert facts.DEVICE.of(began) == "cpu"
        assert set(facts.BUDGETS.of(began) or {}) == {"token_budget", "checkpointing"}

    def test_every_task_ends_once_with_what_a_worker_alone_comes_to(
        self, executor: Executor, began: Any, prepared: Any, alone: list[Outcome]
    ) -> None:
        tasks, found, steps = tasks_of(prepared), {}, []
        for task in tasks:
            executor.submit(task)
        for event in executor.events(lambda task, step: steps.append((task, step))):
            assert isinstance(event, Finished)
            found[tasks.index(event.task)] = event.outcome
        assert sorted(found) == list(range(len(tasks)))
        for place, outcome in enumerate(alone):
            assert_same_outcome(found[place], outcome)
        assert {id(task) for task, _ in steps} <= {id(task) for task in tasks}
        assert all(0 < step.step <= step.steps for _, step in steps)

    def test_more_may_be_submitted_on_the_way(self, executor: Executor, began: Any) -> None:
        executor.submit(pack(7, (0, 0, 0)))
        done = []
        for event in executor.events(lambda task, step: None):
            assert isinstance(event, Finished)
            done.append(event.task.number)
            if event.task.number < 9:
                executor.submit(pack(event.task.number + 1, (0, 0, 0)))
        assert done == [7, 8, 9]
        assert list(executor.events(lambda task, step: None)) == []


class MortalContract(ExecutorContract):
    """And of workers that can be killed: two of them. ``handles`` is the fleet's own name for those that live."""

    handles: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, fleet: Any, prepared: Any) -> Iterator[Executor]:
        pool = Pool(fleet, identity_of(prepared))
        yield pool
        pool.close()
        assert not getattr(fleet, cls.handles)

    def test_of_a_worker_that_dies_only_its_own_task_is_lost(
        self, executor: Executor, began: Any, alone: list[Outcome], kill: Any
    ) -> None:
        tasks = [pack(0, (0, 0, 0), (1, 0, 0)), pack(1, (0, 0, 1)), pack(2, (1, 0, 1))]
        for task in tasks:
            executor.submit(task)
        kill()
        died, done = [], {}
        for event in executor.events(lambda task, step: None):
            if isinstance(event, Died):
                died.append(event)
                executor.submit(event.task)
            if isinstance(event, Finished):
                done[tasks.index(event.task)] = event.outcome
        assert [event.task for event in died] == [tasks[0]]
        assert died[0].reason
        assert sorted(done) == [0, 1, 2]
        assert_same_outcome(done[0], alone[0])
        assert_same_outcome(done[1], alone[1])
        assert executor.workers == 2


def assert_same_but_for_rounding(one: Path, other: Path) -> None:
    """The same trials, scores, predictions and verdict, whoever trained and in whatever packs."""
    apart = {"cells.csv": {"pack_cells"}, "trials.csv": set(), "baselines.csv": set()}
    columns = {"cells.csv": RECORDED, "trials.csv": ASKED, "baselines.csv": ["baseline", "fold", "state", "score"]}
    for name, left_out in apart.items():
        kept = [column for column in columns[name] if column not in left_out]
        mine, theirs = (pd.read_csv(folder / name)[kept] for folder in (one, other))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=False, rtol=1e-4, atol=1e-5)
    mine, theirs = (read_predictions(folder) for folder in (one, other))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=False, rtol=1e-3, atol=1e-4)
    assert rounded(without_time(read_study(one).verdict())) == rounded(without_time(read_study(other).verdict()))


def rounded(value: Any) -> Any:
    """JSON values with numbers of four digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
