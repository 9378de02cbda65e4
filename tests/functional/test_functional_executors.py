"""Who trains, on this machine: this process, or several."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from executing import (
    SPEC,
    ExecutorContract,
    MortalContract,
    assert_same_but_for_rounding,
    assert_same_outcome,
    pack,
)
from forking import Forked

from lora_search import run_study
from lora_search.errors import MachineError
from lora_search.spec import facts
from lora_search.spec.execution import ExecutionSpec
from lora_search.store.files import LIVE_FILE
from lora_search.study import prepare
from lora_search.study.executors import choosing
from lora_search.study.executors.choosing import shares_of, workers_sentence
from lora_search.study.executors.identity import identity_of
from lora_search.study.executors.inline import InlineExecutor
from lora_search.study.executors.messages import Begin, Broken, Lost, answered, greeting
from lora_search.study.executors.pool import Pool
from lora_search.study.executors.processes import Processes, Share
from lora_search.study.executors.ray_actors import connect
from lora_search.study.executors.serving import serve_to_the_end
from lora_search.study.executors.tasks import Refused
from lora_search.study.executors.worker import Worker
from lora_search.study.progress import Silent
from lora_search.training import Engine


class TestThisProcess(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, prepared):
        return InlineExecutor(Worker(prepared, Engine, lanes=1))


def forked(link: Connection, share: Share, errors: Any) -> Forked:
    return Forked(serve_to_the_end, link)


class TestProcesses(MortalContract):
    handles = "processes"

    @pytest.fixture(scope="class")
    @classmethod
    def fleet(cls, prepared):
        return Processes(prepared.experiment, Engine, [Share(1), Share(1)], forked)

    @pytest.fixture
    def kill(self, fleet):
        return lambda: os.kill(fleet.processes[0], signal.SIGKILL)


def test_a_worker_that_is_started_as_users_start_it(world):
    prepared = prepare(world.experiment(**SPEC))
    pool = Pool(Processes(prepared.experiment, Engine, [Share(1)]), identity_of(prepared))
    here = Worker(prepared, Engine, lanes=1)
    assert facts.DEVICE.of(pool.begin({})) == facts.DEVICE.of(here.begin({}))
    pool.submit(pack(0, (0, 0, 0)))
    [event] = pool.events(lambda task, step: None)
    pool.close()
    assert_same_outcome(event.outcome, here.work(pack(0, (0, 0, 0)), lambda step: None))


class Launching:
    """Starts workers in less time; knows them all."""

    def __init__(self) -> None:
        self.workers: list[int] = []

    def __call__(self, link: Connection, share: Share, errors: Any) -> Forked:
        running = forked(link, share, errors)
        self.workers.append(running.pid)
        return running


class Killing(Silent):
    """Kills the workers at the first step of a study that any of them takes: one at least is at something."""

    def __init__(self, folder: Path, launching: Launching) -> None:
        self.live, self.launching = folder / LIVE_FILE, launching
        self.killed = 0
        self.notes: list[str] = []
        self.seen: list[dict[str, Any]] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, step: Any) -> None:
        self.seen.append(json.loads(self.live.read_text()))
        if not self.killed:
            self.killed = len(self.launching.workers)
            for worker in self.launching.workers:
                os.kill(worker, signal.SIGKILL)


def test_a_study_on_two_workers_that_are_killed_is_that_of_one_process(world, finished, tmp_path, monkeypatch):
    launching = Launching()
    monkeypatch.setattr(choosing, "Processes", partial(Processes, launch=launching))
    experiment = world.experiment(execution={"workers": 2})
    told = Killing(tmp_path / experiment.name, launching)
    study = run_study(experiment, tmp_path, progress=told)
    assert_same_but_for_rounding(study.folder, finished)
    assert told.killed == 2
    assert [note for note in told.notes if note.startswith("a worker died over")]
    assert not [worker for worker in launching.workers if Path(f"/proc/{worker}").exists()]
    assert any(re.search(r"in \d+ packs", said["title"]) for said in told.seen)
    assert any(said["curves"] for said in told.seen), "steps reach whoever looks on"

    recorded = study.cells
    alone_again = run_study(world.experiment(search={"trials": 5}), tmp_path, progress=False)
    assert alone_again.experiment.execution == ExecutionSpec(), "a study may go on with other workers"
    assert list(alone_again.cells[alone_again.cells["trial"] < 4]["finished_at"]) == list(recorded["finished_at"])


def test_a_worker_that_cannot_be_one_says_why_in_one_line(world, tmp_path):
    experiment = world.experiment(data={"train": str(tmp_path / "data.csv")}, model={"base": str(tmp_path / "model")})
    worker, said = greeting(experiment, Engine)
    assert worker is None
    assert isinstance(said, Refused)
    assert "data.train: " in said.reason
    assert "model.base: " in said.reason
    assert "\n" not in said.reason


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Lost("memory ran out (CUDA out of memory)")),
        (MachineError("a process was ended from outside"), Lost("a process was ended from outside")),
        (MemoryError(), Lost("memory ran out (MemoryError)")),
    ],
)
def test_a_worker_without_memory_is_of_no_more_use(error, answer):
    assert answered(Failing(error), None, lambda step: None) == answer


def test_a_bug_in_a_worker_comes_with_its_traceback():
    answer = answered(Failing(ValueError("wrong")), None, lambda step: None)
    assert isinstance(answer, Broken)
    assert answer.report.endswith("ValueError: wrong\n")
    refused = answered(Failing(MachineError("needs a GPU")), Begin({}), lambda step: None)
    assert refused == Refused("needs a GPU")


class Failing:
    """A worker of which nothing comes but an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def begin(self, kept: Any) -> Any:
        raise self.error

    def work(self, task: Any, listener: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("asked", "gpus", "threads", "shares", "sentence"),
    [
        ({}, [], 8, [], "this process"),
        ({}, ["0"], 8, [], "this process"),
        ({"workers": 1, "cpus_per_worker": 2}, [], 8, [Share(2)], "one process of its own, 2 CPUs each"),
        ({"workers": 3}, [], 8, [Share(2)] * 3, "3 processes, 2 CPUs each"),
        ({"workers": 3, "cpus_per_worker": 1}, [], 8, [Share(1)] * 3, "3 processes, 1 CPU each"),
        ({}, ["2", "5"], 8, [Share(4, "2"), Share(4, "5")], "2 processes on 2 GPUs, 4 CPUs each"),
        (
            {"gpus_per_worker": 0.5},
            ["0", "1"],
            2,
            [Share(1, "0"), Share(1, "0"), Share(1, "1"), Share(1, "1")],
            "4 processes on 2 GPUs, 1 CPU each",
        ),
        ({"workers": 1, "gpus_per_worker": 0}, ["0"], 4, [Share(4)], "one process of its own, 4 CPUs each"),
    ],
)
def test_shares_of_a_machine(monkeypatch, asked, gpus, threads, shares, sentence):
    monkeypatch.setattr("lora_search.study.executors.choosing._visible_gpus", lambda: gpus)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    execution = ExecutionSpec(**asked)
    assert shares_of(execution) == shares
    assert workers_sentence(execution) == sentence


def test_a_plan_says_who_would_train(world, tmp_path, lora_search):
    spec = world.file(tmp_path, search={"trials": 1}, execution={"workers": 2, "cpus_per_worker": 1})
    answer = lora_search("plan", spec)
    assert answer.code == 0
    assert "workers: 2 processes, 1 CPU each" in answer.out.splitlines()
    assert "by one worker if no trial is stopped early" in answer.out


@pytest.mark.parametrize("command", ["plan", "run"])
def test_without_ray_there_is_one_clear_line(world, tmp_path, lora_search, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    spec = world.file(tmp_path, execution={"engine": "ray"})
    answer = lora_search(command, spec)
    assert answer.code == 2
    said = "execution.engine: needs Ray, which is not installed, got \"ray\"; pip install 'lora-search[ray]'"
    assert answer.err.splitlines() == [f"{spec}: {said}"]
    assert not (tmp_path / "results" / "critics").exists()


def test_without_gpus_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("lora_search.study.executors.choosing._visible_gpus", list)
    with pytest.raises(MachineError, match=r"^execution.gpus_per_worker: must be 0 on a machine without a GPU, got 1$"):
        workers_sentence(ExecutionSpec(gpus_per_worker=1))


class NoCluster:
    """Ray, where nobody answers."""

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ConnectionError(f"Failed to connect to Ray cluster at {settings['address']}")


def test_an_address_where_nobody_answers_is_one_clear_line_and_signals_stay_ours():
    before = signal.getsignal(signal.SIGTERM)
    said = "execution.address: must be that of a running Ray cluster, got 10.0.0.1:6379: Failed to connect to Ray"
    with pytest.raises(MachineError, match=said):
        connect(NoCluster(), ExecutionSpec(engine="ray", address="10.0.0.1:6379"))
    assert signal.getsignal(signal.SIGTERM) is before
