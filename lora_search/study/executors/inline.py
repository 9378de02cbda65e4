"""One worker, in this process: nothing is sent anywhere, and what goes wrong is raised where it happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from lora_search.study.executors.tasks import Event, Finished, Task, Told
from lora_search.study.executors.worker import Worker


class InlineExecutor:
    """Does one task after another (see ``Executor``).

    Args:
        worker: who does them.
    """

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: deque[Task] = deque()

    def begin(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        return self._worker.begin(kept)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def events(self, told: Told) -> Iterator[Event]:
        while self._waiting:
            task = self._waiting.popleft()
            yield Finished(task, self._worker.work(task, partial(told, task)))

    def close(self) -> None:
        self._waiting.clear()
