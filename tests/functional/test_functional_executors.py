"""Who trains, on this machine: this process, or several."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from executing import ExecutorContract, assert_same_but_for_rounding

from lora_search import run_study
from lora_search.errors import MachineError
from lora_search.spec.execution import ExecutionSpec
from lora_search.store.files import LIVE_FILE
from lora_search.study import prepare
from lora_search.study.executors.choosing import shares_of, workers_sentence
from lora_search.study.executors.identity import identity_of
from lora_search.study.executors.inline import InlineExecutor
from lora_search.study.executors.pool import Pool
from lora_search.study.executors.processes import Processes, Share
from lora_search.study.executors.worker import Worker
from lora_search.study.progress import Silent
from lora_search.training import Engine


class TestThisProcess(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, prepared):
        return InlineExecutor(Worker(prepared, Engine, lanes=1))

    @pytest.fixture(scope="class")
    @classmethod
    def began(cls, executor):
        return executor.begin({})

    @pytest.fixture
    def kill(self):
        return None


class TestProcesses(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def fleet(cls, prepared):
        return Processes(prepared.experiment, Engine, [Share(1), Share(1)])

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, fleet, prepared):
        pool = Pool(fleet, identity_of(prepared))
        yield pool
        pool.close()
        assert not fleet.processes

    @pytest.fixture(scope="class")
    @classmethod
    def began(cls, executor):
        return executor.begin({})

    @pytest.fixture
    def kill(self, fleet):
        return lambda: os.kill(fleet.processes[0], signal.SIGKILL)


class Killing(Silent):
    """Kills a worker process of this one at the first step of a study that any of them takes."""

    def __init__(self, folder: Path) -> None:
        self.live = folder / LIVE_FILE
        self.killed: list[int] = []
        self.notes: list[str] = []
        self.seen: list[dict[str, Any]] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, step: Any) -> None:
        self.seen.append(json.loads(self.live.read_text()))
        if not self.killed:
            self.killed.append(workers_of(os.getpid())[0])
            os.kill(self.killed[0], signal.SIGKILL)


def workers_of(process: int) -> list[int]:
    """The worker processes a process has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"executors.serving" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_study_on_two_workers_of_which_one_is_killed_is_that_of_one_process(world, finished, tmp_path):
    experiment = world.experiment(execution={"workers": 2})
    told = Killing(tmp_path / experiment.name)
    study = run_study(experiment, tmp_path, progress=told)
    assert_same_but_for_rounding(study.folder, finished)
    assert told.killed
    assert [note for note in told.notes if note.startswith("a worker died over")]
    assert not workers_of(os.getpid())
    assert any("in 2 packs" in said["title"] for said in told.seen)
    assert any(said["curves"] for said in told.seen), "steps reach whoever looks on"

    recorded = study.cells
    alone_again = run_study(world.experiment(search={"trials": 5}), tmp_path, progress=False)
    assert alone_again.experiment.execution == ExecutionSpec(), "a study may go on with other workers"
    assert list(alone_again.cells[alone_again.cells["trial"] < 4]["finished_at"]) == list(recorded["finished_at"])


def test_a_worker_that_cannot_be_one_ends_the_run_before_it_begins(world, tmp_path):
    (tmp_path / "data.csv").write_text(Path(world.data).read_text())
    experiment = world.experiment(data={"train": str(tmp_path / "data.csv")})
    ours = identity_of(prepare(experiment))
    (tmp_path / "data.csv").unlink()
    with pytest.raises(MachineError, match=r"no worker can be used: data\.train: .*data\.csv"):
        Pool(Processes(experiment, Engine, [Share(1)]), ours)


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
