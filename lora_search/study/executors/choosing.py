"""From what an experiment says of its execution to who trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lora_search.errors import MachineError
from lora_search.spec.execution import ExecutionSpec
from lora_search.study.executors.identity import identity_of
from lora_search.study.executors.inline import InlineExecutor
from lora_search.study.executors.pool import Fleet, Pool
from lora_search.study.executors.processes import Processes, Share
from lora_search.study.executors.ray_actors import RayFleet, imported_ray
from lora_search.study.executors.tasks import Executor
from lora_search.study.executors.worker import MakeEngine, Worker
from lora_search.study.preparation import Prepared
from lora_search.study.progress import counted

THIS_PROCESS = "this process"


@contextmanager
def executor_of(prepared: Prepared, make_engine: MakeEngine, say: Callable[[str], None]) -> Iterator[Executor]:
    """Who trains this experiment, ended when the block is.

    Args:
        prepared: the experiment.
        make_engine: makes what trains.
        say: tells the user.

    Raises:
        MachineError: this machine, or the cluster, has not what is asked for.
    """
    executor = _executor(prepared, make_engine, say)
    try:
        yield executor
    finally:
        executor.close()


def _executor(prepared: Prepared, make_engine: MakeEngine, say: Callable[[str], None]) -> Executor:
    experiment = prepared.experiment
    fleet: Fleet
    if experiment.execution.engine == "ray":
        fleet = RayFleet(experiment, make_engine, say)
    elif shares := shares_of(experiment.execution):
        fleet = Processes(experiment, make_engine, shares)
    else:
        return InlineExecutor(Worker(prepared, make_engine))
    return Pool(fleet, identity_of(prepared))


def shares_of(execution: ExecutionSpec) -> list[Share]:
    """What each worker process has of this machine; none where this process is the worker.

    Raises:
        MachineError: this machine has not what is asked for.
    """
    gpus = _visible_gpus()
    if execution.gpus_per_worker and not gpus:
        got = f"{execution.gpus_per_worker:g}"
        raise MachineError.about("execution.gpus_per_worker", "must be 0 on a machine without a GPU", got=got)
    each = 1.0 if execution.gpus_per_worker is None else execution.gpus_per_worker
    used = gpus if each else []
    workers = execution.workers or (int(len(used) / each) if used else 1)
    if workers == 1 and execution.cpus_per_worker is None and (each or not gpus):
        return []
    threads = execution.cpus_per_worker or max(1, torch.get_num_threads() // workers)
    return [Share(threads, used[int(place * each) % len(used)] if used else None) for place in range(workers)]


def workers_sentence(execution: ExecutionSpec) -> str:
    """Who would train, for a plan.

    Raises:
        MachineError: this machine has not what is asked for.
    """
    if execution.engine == "ray":
        imported_ray()
        where = "a Ray of this machine's own" if execution.address is None else f"Ray at {execution.address}"
        workers = "as many as there is room for" if execution.workers is None else f"{execution.workers}"
        share = counted(execution.cpus_per_worker or 1, "CPU")
        if execution.gpus_per_worker is None:
            share += " and a GPU where there are any"
        elif execution.gpus_per_worker:
            share += f" and {execution.gpus_per_worker:g} of a GPU" if execution.gpus_per_worker < 1 else " and a GPU"
        return f"{workers} on {where}, each with {share}"
    shares = shares_of(execution)
    if not shares:
        return THIS_PROCESS
    gpus = len({share.gpu for share in shares if share.gpu is not None})
    on = f" on {counted(gpus, 'GPU')}" if gpus else ""
    several = f"{len(shares)} processes" if len(shares) > 1 else "one process of its own"
    return f"{several}{on}, {counted(shares[0].threads, 'CPU')} each"


def _visible_gpus() -> list[str]:
    """As ``CUDA_VISIBLE_DEVICES`` names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
