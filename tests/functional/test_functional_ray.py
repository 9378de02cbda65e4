"""Who trains, in a cluster: Ray's actors on one node, started for these tests on this machine.

``experiments/audits/two_nodes.py`` is the long form: two nodes, one of them killed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from executing import MortalContract, assert_same_but_for_rounding

from lora_search import run_study
from lora_search.errors import MachineError
from lora_search.spec.execution import ExecutionSpec
from lora_search.store.files import LIVE_FILE
from lora_search.study.executors import choosing, ray_actors
from lora_search.study.executors.choosing import workers_sentence
from lora_search.study.executors.ray_actors import RayFleet
from lora_search.study.progress import Silent
from lora_search.training import Engine

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'lora-search[ray]'): no cluster is tested")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Of one node with two CPUs; a driver that is connected already does not end it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray leaves a key in the user's home
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()


class TestActors(MortalContract):
    handles = "actors"

    @pytest.fixture(scope="class")
    @classmethod
    def fleet(cls, prepared):
        execution = ExecutionSpec(engine="ray")
        return RayFleet(prepared.experiment.model_copy(update={"execution": execution}), Engine)

    @pytest.fixture
    def kill(self, fleet):
        return lambda: ray.kill(fleet.actors[0])


class Watched(RayFleet):
    """Known to the test that kills one of its workers."""

    made: ClassVar[list[RayFleet]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made.append(self)


class Killing(Silent):
    """Kills the workers at the first step that one tells of: one at least is at something."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self.notes: list[str] = []
        self.curves = 0
        self.killed = False

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, step: Any) -> None:
        self.curves += len(json.loads(self.live.read_text())["curves"])
        (fleet,) = Watched.made
        if not self.killed:
            self.killed = True
            for actor in fleet.actors.values():
                ray.kill(actor)


def test_a_study_of_which_the_workers_are_killed_is_that_of_one_process(world, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "RayFleet", Watched)
    monkeypatch.setattr(ray_actors, "_STEP_SECONDS", 0.05)
    # long enough for a worker to be asked how far it is, and so slow that rounding does not grow
    spec = {"search": {"learning_rate": 0.001}, "training": {"epochs": 20}, "baselines": {"include": ["majority"]}}
    alone = run_study(world.experiment(**spec), tmp_path / "alone", progress=False)
    experiment = world.experiment(**spec, execution={"engine": "ray"})
    told = Killing(tmp_path / experiment.name / LIVE_FILE)
    study = run_study(experiment, tmp_path, progress=told)
    assert_same_but_for_rounding(study.folder, alone.folder)
    assert told.killed
    assert [note for note in told.notes if note.startswith("a worker died over trial")]
    assert told.curves, "steps reach whoever looks on"
    assert ray.is_initialized(), "whoever was connected before stays so"
    assert not Watched.made[0].actors


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus_per_worker": 3}, "execution.cpus_per_worker: must be no more than the cluster has, 2 CPUs, got 3"),
        ({"gpus_per_worker": 0.5}, "execution.gpus_per_worker: must be no more than the cluster has, 0 GPUs, got 0.5"),
    ],
)
def test_more_than_the_cluster_has(world, asked, message):
    with pytest.raises(MachineError, match=f"^{message}$"):
        RayFleet(world.experiment(execution={"engine": "ray", **asked}), Engine)


def test_that_a_cluster_has_no_room_is_told_while_it_is_waited_for(world, monkeypatch):
    monkeypatch.setattr(ray_actors, "_WAITING_SECONDS", 0.5)

    class Holding:
        def there(self):
            pass

    def told(sentence):
        raise StopIteration(sentence)

    holder = ray.remote(num_cpus=2)(Holding).remote()
    ray.get(holder.there.remote())
    fleet = RayFleet(world.experiment(execution={"engine": "ray", "workers": 1}), Engine, told)
    fleet.start(0)
    with pytest.raises(StopIteration, match="`ray status` tells"):
        fleet.receive()
    fleet.close()
    ray.kill(holder)


def test_a_plan_says_where():
    execution = ExecutionSpec(engine="ray", address="10.0.0.1:6379", workers=40, gpus_per_worker=0.5)
    assert workers_sentence(execution) == "40 on Ray at 10.0.0.1:6379, each with 1 CPU and 0.5 of a GPU"
    here = workers_sentence(ExecutionSpec(engine="ray", cpus_per_worker=2))
    each = "each with 2 CPUs and a GPU where there are any"
    assert here == f"as many as there is room for on a Ray of this machine's own, {each}"
