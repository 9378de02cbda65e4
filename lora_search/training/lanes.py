"""Several lanes on a CPU: processes that compute different micro-batches of one step at the same time.

Two threads inside every operation leave much of the second core unused: most operations on a micro-batch are small,
and each waits for its slower half. Two threads that each run whole micro-batches wait for the interpreter, which they
share. Two processes wait for each other twice a step: when all gradients are there, and when all weights are updated.

A lane is forked from the process that set up the pack, so it has the frozen model, the cached states and the data
without a copy of them; what lanes write for each other lies in shared memory. Every lane runs the same program and
comes to the same decisions; only the rows it computes and the slots it updates are its own. Each computes with one
thread: threads of a parallel region do not survive a fork.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from lora_search.errors import MachineError

Value = TypeVar("Value")

_MOST = 16
"""More lanes than this would leave each too few rows."""


def lanes_of(device: torch.device) -> int:
    """How many lanes to compute a pack in: one per thread of a CPU. A GPU is kept busy by one."""
    return possible_lanes(min(_MOST, torch.get_num_threads()), device)


def possible_lanes(wanted: int, device: torch.device) -> int:
    """``wanted``, or 1 where lanes cannot be forked.

    Only Linux forks safely; autograd does not where it has threads of an accelerator; nor may a worker of a pool.
    """
    forks = device.type == "cpu" and sys.platform == "linux" and not torch.accelerator.is_available()
    return wanted if forks and not multiprocessing.current_process().daemon else 1


@dataclass(frozen=True)
class _Shared:
    """Sent by a lane that has come to where values are shared."""

    value: Any


@dataclass(frozen=True)
class _Broken:
    """Sent by a lane that failed: its traceback."""

    report: str


class _LeaderEnded(Exception):
    """Lane 0 has ended, and with it what the others were there for."""


class Team:
    """The lanes of one pack; this process is number ``lane``.

    Args:
        lane: 0 is the process that the others were forked from.
        size: how many there are.
        links: of lane 0, one to each of the others, in order; of these, one to lane 0.
    """

    def __init__(self, lane: int = 0, size: int = 1, links: Sequence[Connection] = ()) -> None:
        self.lane = lane
        self.size = size
        self._links = links

    def share(self, value: Value) -> list[Value]:
        """Every lane's value, in order; no lane goes on before all have come here.

        Raises:
            RuntimeError: another lane failed.
            MachineError: another lane was ended from outside, as the system does when memory runs out.
        """
        if self.lane:
            (leader,) = self._links
            try:
                leader.send(_Shared(value))
                return leader.recv()  # type: ignore[no-any-return]
            except (EOFError, OSError) as error:
                raise _LeaderEnded from error
        values = [value, *(self._received(link) for link in self._links)]
        for link in self._links:
            link.send(values)
        return values

    def meet(self) -> None:
        """Go on when all lanes have come here."""
        self.share(None)

    def owns(self, slot: int, slots: int) -> bool:
        """Whether this lane updates a slot of a pack of so many."""
        return slot * self.size // slots == self.lane

    def _received(self, link: Connection) -> Any:
        try:
            value = link.recv()
        except (EOFError, OSError):
            value = None
        match value:
            case _Shared(value):
                return value
            case _Broken(report):
                raise RuntimeError(f"a process that computed for this one failed:\n{report}")
            case _:
                raise MachineError(
                    "a process that computed for this one was ended from outside, as a system does that runs out of"
                    " memory; the same command goes on, and has more room with less running beside it"
                )


@contextmanager
def started_team(size: int, work: Callable[[Team], object]) -> Iterator[Team]:
    """Lanes that do ``work``; the block is lane 0's. When it ends, however it ends, none is computing any more."""
    if size == 1:
        yield Team()
        return
    forking = multiprocessing.get_context("fork")
    pairs = [forking.Pipe() for _ in range(1, size)]
    others = [
        forking.Process(target=_run_lane, args=(lane, size, pairs, work), daemon=True, name=f"lane {lane}")
        for lane in range(1, size)
    ]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with warnings.catch_warnings():
            # that other threads exist: a lane does not go on with what they were doing
            warnings.simplefilter("ignore", DeprecationWarning)
            for other in others:
                other.start()
        for _, theirs in pairs:
            theirs.close()
        yield Team(0, size, [ours for ours, _ in pairs])
    finally:
        for ours, _ in pairs:
            ours.close()
        for other in others:
            if other.pid is not None:
                other.kill()
                other.join()
        torch.set_num_threads(threads)


def _run_lane(
    lane: int, size: int, pairs: Sequence[tuple[Connection, Connection]], work: Callable[[Team], object]
) -> None:
    """What a forked lane does: the work, or the report of why not. Nothing else of the process is run on."""
    # an interrupt is lane 0's to handle, which ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    torch.set_num_threads(1)
    for number, (leading, own) in enumerate(pairs, 1):
        leading.close()
        if number != lane:
            own.close()
    link = pairs[lane - 1][1]
    try:
        work(Team(lane, size, [link]))
    except _LeaderEnded:
        pass
    except BaseException:
        with suppress(OSError):
            link.send(_Broken(traceback.format_exc()))
    finally:
        os._exit(0)
