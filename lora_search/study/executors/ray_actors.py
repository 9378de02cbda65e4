"""Workers as the actors of a Ray cluster, each with a share of a node.

Ray places them, says when one is gone, and brings messages; who does what is the pool's business, as with processes.
So Ray restarts no actor and repeats no task by itself: a pack would be trained twice, or over and over where it is the
pack that takes the memory. A worker whose node is gone waits, started anew, for room on another; the others go on.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from lora_search.errors import MachineError
from lora_search.models import quiet_libraries
from lora_search.spec import Experiment
from lora_search.spec.execution import ExecutionSpec
from lora_search.study.executors.messages import Answer, Lost, Order, Stepped, answered, greeting
from lora_search.study.executors.tasks import Outcome, Refused, Task
from lora_search.study.executors.worker import MakeEngine, Worker
from lora_search.training import Step

_STEP_SECONDS = 0.5
"""How often a worker is asked how far it is."""
_WAITING_SECONDS = 60.0
_REASON = 300  # characters of what Ray says


class Actor:
    """A worker, inside an actor of Ray.

    Two of its methods may run at the same time: one computes, the other says how far that is.

    Args:
        experiment: as the driver read it.
        make_engine: see ``Worker``.
        threads: to compute with.
    """

    def __init__(self, experiment: Experiment, make_engine: MakeEngine, threads: int) -> None:
        self._experiment = experiment
        self._make_engine = make_engine
        self._threads = threads
        self._worker: Worker | None = None
        self._steps: deque[Step] = deque()

    def greet(self) -> Answer:
        """Load data and model."""
        torch.set_num_threads(self._threads)
        with quiet_libraries():
            # lanes are forked, and a process in which Ray's threads run is not safe to fork
            self._worker, first = greeting(self._experiment, self._make_engine, lanes=1)
        return first

    def answer(self, order: Order) -> Answer:
        """Do what is asked."""
        assert self._worker is not None, "asked only once it has greeted"
        torch.set_num_threads(self._threads)  # which is of a thread, and this may be another
        self._steps.clear()
        return answered(self._worker, order, self._steps.append)

    def steps(self) -> list[Step]:
        """Those taken since the last call."""
        found = []
        with suppress(IndexError):
            while True:
                found.append(self._steps.popleft())
        return found


@dataclass
class _Asked:
    """A call under way, of the actor in ``place``; ``polling`` is one that asks for steps."""

    place: int
    actor: Any
    polling: bool


class RayFleet:
    """Workers as actors of a cluster (see ``Fleet``).

    Args:
        experiment: as the driver read it.
        make_engine: see ``Worker``; importable by its name on every node.
        say: tells the user.

    Raises:
        MachineError: Ray is not installed, there is no cluster at the address, or it has no room for a worker.
    """

    def __init__(
        self, experiment: Experiment, make_engine: MakeEngine, say: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self._experiment = experiment
        self._make_engine = make_engine
        self._say = say
        self._ray = imported_ray()
        self._connected = connect(self._ray, experiment.execution)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, _Asked] = {}
        self._heard: deque[tuple[int, Answer]] = deque()
        self._poll_at: dict[int, float] = {}
        self._starting: dict[int, float] = {}
        self._told_of_waiting = False
        try:
            self._resources, self._places = _room(self._ray.cluster_resources(), experiment.execution)
        except BaseException:
            self.close()
            raise
        # Ray leaves the GPUs of a node in sight of those that asked for none of them
        self._no_gpu = {} if self._resources["num_gpus"] else {"CUDA_VISIBLE_DEVICES": ""}
        self._class = self._ray.remote(Actor)

    @property
    def places(self) -> int:
        return self._places

    @property
    def actors(self) -> dict[int, Any]:
        """The handle of the worker in every place."""
        return dict(self._actors)

    def start(self, place: int) -> None:
        self._end(place)
        threads = int(self._resources["num_cpus"])
        actor = self._class.options(
            **self._resources,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads), **self._no_gpu}},
        ).remote(self._experiment, self._make_engine, threads)
        self._actors[place] = actor
        self._starting[place] = time.monotonic()
        self._ask(place, actor.greet.remote())

    def send(self, place: int, order: Order) -> None:
        actor = self._actors[place]
        self._ask(place, actor.answer.remote(order))
        if isinstance(order, Task):
            self._poll_at[place] = time.monotonic() + _STEP_SECONDS

    def receive(self) -> tuple[int, Answer]:
        while not self._heard:
            self._poll()
            ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_STEP_SECONDS)
            for reference in ready:
                self._take(reference)
            self._tell_of_waiting()
        return self._heard.popleft()

    def close(self) -> None:
        for place in list(self._actors):
            self._end(place)
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    # -- calls ---------------------------------------------------------------------------------------------------

    def _ask(self, place: int, reference: Any, *, polling: bool = False) -> None:
        self._asked[reference] = _Asked(place, self._actors[place], polling)

    def _poll(self) -> None:
        now = time.monotonic()
        for place, when in list(self._poll_at.items()):
            if now >= when:
                del self._poll_at[place]
                self._ask(place, self._actors[place].steps.remote(), polling=True)

    def _tell_of_waiting(self) -> None:
        """Once, and while no worker has begun: of later ones the others' results tell enough."""
        if self._told_of_waiting or len(self._starting) < len(self._actors):
            return
        if self._starting and time.monotonic() - max(self._starting.values()) > _WAITING_SECONDS:
            self._told_of_waiting = True
            self._say(
                f"No worker has begun after {_WAITING_SECONDS:.0f} s. If others have the room of the cluster, they"
                " begin when it is free; `ray status` tells."
            )

    def _take(self, reference: Any) -> None:
        """What became of a call."""
        asked = self._asked.pop(reference)
        if self._actors.get(asked.place) is not asked.actor:  # of a worker that has been replaced
            return
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(reference)
        except errors.RayTaskError as error:
            self._hear(asked.place, Refused(_told(error)))
            return
        except errors.RayError as error:  # whatever Ray calls it: the node's memory was short, or the node is gone
            if not asked.polling:  # what becomes of the task is told by the task
                self._end(asked.place)
                self._hear(asked.place, Lost(_told(error)))
            return
        if not asked.polling:
            if isinstance(answer, Outcome):
                self._poll_at.pop(asked.place, None)
            self._hear(asked.place, answer)
            return
        for step in answer:
            self._hear(asked.place, Stepped(step))
        if any(other.place == asked.place and not other.polling for other in self._asked.values()):
            self._poll_at[asked.place] = time.monotonic() + _STEP_SECONDS

    def _hear(self, place: int, answer: Answer) -> None:
        self._starting.pop(place, None)
        self._heard.append((place, answer))

    def _end(self, place: int) -> None:
        actor = self._actors.pop(place, None)
        self._poll_at.pop(place, None)
        self._starting.pop(place, None)
        if actor is not None:
            self._asked = {ref: asked for ref, asked in self._asked.items() if asked.actor is not actor}
            with suppress(Exception):  # it is gone, or its node is
                self._ray.kill(actor, no_restart=True)


def imported_ray() -> Any:
    """The package.

    Raises:
        MachineError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MachineError.about(
            "execution.engine", "needs Ray, which is not installed", got='"ray"', hint="pip install 'lora-search[ray]'"
        ) from error


def connect(ray: Any, execution: ExecutionSpec) -> bool:
    """Be a driver of the cluster; False where this process is one already.

    Raises:
        MachineError: there is no cluster at the address.
    """
    if ray.is_initialized():
        return False
    # Ray would end its processes at SIGTERM and exit; here it is an interrupt, after which a study is whole
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=execution.address,
            include_dashboard=None if execution.address else False,
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:_REASON]
        raise MachineError.about(
            "execution.address", "must be that of a running Ray cluster", got=f"{execution.address}: {reason}"
        ) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)
    return True


def _room(there: dict[str, float], execution: ExecutionSpec) -> tuple[dict[str, float], int]:
    """What a worker asks of a node, and how many workers there are to be.

    Args:
        there: resources of the cluster, by Ray's names.
        execution: what is asked for.

    Raises:
        MachineError: it has not enough for one.
    """
    gpus = there.get("GPU", 0.0)
    per_worker = execution.gpus_per_worker
    share = (1.0 if gpus else 0.0) if per_worker is None else per_worker
    resources = {"num_cpus": float(execution.cpus_per_worker or 1), "num_gpus": share}
    rooms = [("cpus_per_worker", "CPU", resources["num_cpus"]), ("gpus_per_worker", "GPU", share)]
    for name, resource, wanted in rooms:
        if wanted > there.get(resource, 0.0):
            has = f"{there.get(resource, 0.0):g} {resource}s"
            got = f"{wanted:g}"
            raise MachineError.about(f"execution.{name}", f"must be no more than the cluster has, {has}", got=got)
    room = min(int(there[resource] / wanted) for _, resource, wanted in rooms if wanted)
    return resources, execution.workers or room


def _told(error: Exception) -> str:
    """What Ray says of an actor or a call, in one line."""
    cause = getattr(error, "cause", None) or error
    words = " ".join(str(cause).split())
    return words[-_REASON:] if len(words) > _REASON else words
