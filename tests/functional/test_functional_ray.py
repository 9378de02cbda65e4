"""Who trains, in a cluster: Ray's actors on one node, started for these tests on this machine.

``experiments/audits/two_nodes.py`` is the long form: two nodes, one of them killed.
"""

from __future__ import annotations

from typing import Any

import pytest
from executing import MortalContract, assert_same_but_for_rounding

from lora_search import run_study
from lora_search.errors import MachineError
from lora_search.spec.execution import ExecutionSpec
from lora_search.study.executors.choosing import workers_sentence
from lora_search.study.executors.identity import identity_of
from lora_search.study.executors.pool import Pool
from lora_search.study.executors.ray_actors import RayFleet
from lora_search.study.progress import Silent
from lora_search.training import Engine

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'lora-search[ray]'): no cluster is tested")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Of one node with two CPUs; a driver that is connected already does not end it."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


class TestActors(MortalContract):
    @pytest.fixture(scope="class")
    @classmethod
    def fleet(cls, prepared):
        execution = ExecutionSpec(engine="ray")
        return RayFleet(prepared.experiment.model_copy(update={"execution": execution}), Engine)

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, fleet, prepared):
        pool = Pool(fleet, identity_of(prepared))
        yield pool
        pool.close()
        assert not fleet.actors

    @pytest.fixture(scope="class")
    @classmethod
    def began(cls, executor):
        return executor.begin({})

    @pytest.fixture
    def kill(self, fleet):
        return lambda: ray.kill(fleet.actors[0])
