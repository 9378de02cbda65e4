"""What a worker elsewhere and the pool say to each other, and how a worker answers."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_search.errors import InputError, MachineError
from lora_search.spec import Experiment
from lora_search.study.executors.identity import Identity, identity_of
from lora_search.study.executors.tasks import Outcome, Refused, Task
from lora_search.study.executors.worker import MakeEngine, Worker
from lora_search.study.preparation import prepare
from lora_search.training import Step
from lora_search.training.memory import is_out_of_memory


@dataclass(frozen=True)
class Begin:
    """To a worker: set up what trains, with these facts of the study."""

    kept: Mapping[str, Any]


@dataclass(frozen=True)
class Hello:
    """It has data and model in hand."""

    identity: Identity


@dataclass(frozen=True)
class Ready:
    """It can take tasks, and computes like this."""

    facts: dict[str, Any]


@dataclass(frozen=True)
class Stepped:
    """A step of its task is taken."""

    step: Step


@dataclass(frozen=True)
class Lost:
    """It is gone, or of no more use: killed, out of memory."""

    reason: str


@dataclass(frozen=True)
class Broken:
    """It met a bug: the traceback."""

    report: str


Order = Begin | Task
Answer = Hello | Ready | Stepped | Outcome | Refused | Lost | Broken


def greeting(
    experiment: Experiment, make_engine: MakeEngine, lanes: int | None = None
) -> tuple[Worker | None, Hello | Refused | Broken]:
    """Load data and model: the worker, if there can be one, and the first thing it says.

    Args:
        experiment: as the driver read it.
        make_engine, lanes: see ``Worker``.
    """
    try:
        prepared = prepare(experiment)
        return Worker(prepared, make_engine, lanes), Hello(identity_of(prepared))
    except InputError as error:
        return None, Refused(" ".join(str(error).splitlines()))
    except Exception:
        return None, Broken(traceback.format_exc())


def answered(worker: Worker, order: Order, listener: Callable[[Step], None]) -> Answer:
    """What a worker says to an order, when it is through with it.

    Args:
        worker: it. order: for it.
        listener: called after every step.
    """
    try:
        return Ready(worker.begin(order.kept)) if isinstance(order, Begin) else worker.work(order, listener)
    except (BrokenPipeError, ConnectionError):  # whoever asked is gone
        raise
    except InputError as error:
        reason = " ".join(str(error).splitlines())
        # what is said of this machine in the middle of a training is that a process of it was ended from outside
        gone = isinstance(error, MachineError) and not isinstance(order, Begin)
        return Lost(reason) if gone else Refused(reason)
    except Exception as error:
        if isinstance(error, (RuntimeError, MemoryError, OSError)) and is_out_of_memory(error):
            return Lost(f"memory ran out ({' '.join(str(error).split())[:200] or type(error).__name__})")
        return Broken(traceback.format_exc())
