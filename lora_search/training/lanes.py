"""Several lanes on a CPU: threads that compute different micro-batches of one step at the same time.

Two threads inside every operation leave much of the second core unused: most operations on a micro-batch are small,
and each waits for its slower half. Two threads that each run whole micro-batches wait for each other once a step. All
lanes share the weights of one frozen model; each has its own module tree, since attaching a pack changes the tree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")

_MOST = 2
"""More lanes than this would leave each too few rows, and the interpreter, which all lanes share, too little time."""


def lanes_of(device: torch.device) -> int:
    """How many lanes to compute a pack in: a GPU is kept busy by one."""
    return 1 if device.type == "cuda" else min(_MOST, torch.get_num_threads())


def twin(model: nn.Module) -> nn.Module:
    """A module tree of its own over the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


class Lanes:
    """Runs one task per lane, all at the same time, and waits for all of them."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Results in order.

        Raises:
            Exception: what the first failing task raised, when all have ended.
        """
        if self._executor is None or len(tasks) == 1:
            return [task() for task in tasks]
        futures = [self._executor.submit(task) for task in tasks]
        wait(futures)
        return [future.result() for future in futures]


@contextmanager
def started_lanes(count: int) -> Iterator[Lanes]:
    """Lanes that share the machine's threads; when the block ends, however it ends, none is computing any more."""
    if count == 1:
        yield Lanes(None)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(count, "lane", torch.set_num_threads, (max(1, threads // count),)) as executor:
        try:
            yield Lanes(executor)
        finally:
            executor.shutdown(cancel_futures=True)
            # a new thread takes over what was set last anywhere
            torch.set_num_threads(threads)
