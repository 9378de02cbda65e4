"""What is made of Ray's answers, by a Ray that only answers; the real one is in ``tests/functional``."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from fabricated_studies import experiment_mapping

from lora_search.spec import Experiment
from lora_search.study.executors import ray_actors
from lora_search.study.executors.messages import Begin, Lost, Refused
from lora_search.study.executors.ray_actors import RayFleet
from lora_search.training import Engine


class RayError(Exception):
    """As in ``ray.exceptions``, where all below are its children."""


class RayTaskError(RayError):
    pass


class RayActorError(RayError):
    pass


GONE = [
    type(name, (RayError,), {})
    for name in (
        "ActorUnschedulableError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError", "OwnerDiedError",
        "RuntimeEnvSetupError",
    )
]  # fmt: skip


class FakeRay:
    """A cluster of one CPU, whose calls end as a test says, in the order in which they were made.

    Attributes:
        endings: of the calls that are waited for: what they return, or raise.
        killed: actors that were ended.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, RayActorError=RayActorError)

    def __init__(self) -> None:
        self.endings: deque[Any] = deque()
        self.killed: list[Any] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, _: type) -> Any:
        call = SimpleNamespace(remote=lambda *arguments: object())
        made = lambda *arguments: SimpleNamespace(greet=call, answer=call, steps=call)  # noqa: E731
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=made))

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Any:
        ending = self.endings.popleft()
        if isinstance(ending, Exception):
            raise ending
        return ending

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setattr(ray_actors, "imported_ray", lambda: found)
    return found


@pytest.fixture
def fleet(ray: FakeRay) -> RayFleet:
    experiment = Experiment.model_validate(experiment_mapping(execution={"engine": "ray"}))
    found = RayFleet(experiment, Engine)
    found.start(0)
    return found


@pytest.mark.parametrize("error", [RayActorError, *GONE])
def test_a_worker_of_which_ray_says_that_it_is_gone_is_lost(ray: FakeRay, fleet: RayFleet, error: type) -> None:
    actor = fleet.actors[0]
    ray.endings.append(error("low on\nmemory"))
    assert fleet.receive() == (0, Lost("low on memory"))
    assert (fleet.actors, ray.killed) == ({}, [actor])
    fleet.start(0)  # as the pool does it
    ray.endings.append("here")
    assert fleet.receive() == (0, "here")


def test_a_worker_that_raises_is_refused(ray: FakeRay, fleet: RayFleet) -> None:
    ray.endings.append(RayTaskError("no such file"))
    assert fleet.receive() == (0, Refused("no such file"))


@pytest.mark.parametrize("error", [RayActorError, *GONE])
def test_steps_that_are_lost_cost_no_worker(ray: FakeRay, fleet: RayFleet, error: type) -> None:
    """What becomes of the task is told by the task itself."""
    ray.endings.append("here")
    fleet.receive()
    fleet._ask(0, fleet.actors[0].steps.remote(), polling=True)
    fleet.send(0, Begin({}))
    ray.endings += [error("gone"), "ready"]
    assert fleet.receive() == (0, "ready")
    assert ray.killed == []
