"""From what an experiment says of its execution to who trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lora_search.study.executors.inline import InlineExecutor
from lora_search.study.executors.tasks import Executor
from lora_search.study.executors.worker import MakeEngine, Worker
from lora_search.study.preparation import Prepared


@contextmanager
def executor_of(prepared: Prepared, make_engine: MakeEngine) -> Iterator[Executor]:
    """Who trains this experiment, ended when the block is.

    Args:
        prepared: the experiment.
        make_engine: makes what trains.
    """
    executor = InlineExecutor(Worker(prepared, make_engine))
    try:
        yield executor
    finally:
        executor.close()
