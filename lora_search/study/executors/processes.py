"""Worker processes on this machine: one for every GPU, or for every share of the CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, Any, Protocol

from lora_search.spec import Experiment
from lora_search.study.executors.messages import Answer, Lost, Order
from lora_search.study.executors.serving import Setting
from lora_search.study.executors.worker import MakeEngine

_SERVING = "lora_search.study.executors.serving"
_PATIENCE = 5.0  # seconds for a process whose connection broke to be gone


@dataclass(frozen=True)
class Share:
    """What a worker has of this machine.

    Attributes:
        threads: to compute with.
        gpu: as ``CUDA_VISIBLE_DEVICES`` names it; None for none.
    """

    threads: int
    gpu: str | None = None


class Running(Protocol):
    """A process, as far as it matters here: what ``subprocess.Popen`` has."""

    pid: int

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative of a signal; ``subprocess.TimeoutExpired`` while it runs on."""


def launched(link: Connection, share: Share, errors: IO[bytes]) -> Running:
    """Start a worker process.

    Args:
        link: its end of the connection.
        share: of this machine.
        errors: where its standard error goes.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(share.threads), "CUDA_VISIBLE_DEVICES": share.gpu or ""}
    return subprocess.Popen(
        [sys.executable, "-m", _SERVING, str(link.fileno())],
        env=environment,
        pass_fds=[link.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )


@dataclass
class _Process:
    """A worker, its connection, and the file its standard error goes to."""

    running: Running
    link: Connection
    errors: IO[bytes]

    def end(self) -> str:
        """See that it is gone; why it went, if it went by itself."""
        self.link.close()
        try:
            code = self.running.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.running.kill()
            code = self.running.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        self.errors.close()
        if code < 0:
            return f"it was ended by signal {-code}, as a system does that runs out of memory"
        return f"it ended with exit code {code}" + (f": {said[-1][:200]}" if said else "")


class Processes:
    """Workers as processes of this machine (see ``Fleet``).

    Args:
        experiment: as the driver read it.
        make_engine: see ``Worker``; importable by its name.
        shares: of each worker.
        launch: starts a process.
    """

    def __init__(
        self,
        experiment: Experiment,
        make_engine: MakeEngine,
        shares: Sequence[Share],
        launch: Callable[[Connection, Share, IO[bytes]], Running] = launched,
    ) -> None:
        self._launch = launch
        self._experiment = experiment
        self._make_engine = make_engine
        self._shares = list(shares)
        self._started: dict[int, _Process] = {}

    @property
    def places(self) -> int:
        return len(self._shares)

    @property
    def processes(self) -> dict[int, int]:
        """The process number of the worker in every place."""
        return {place: worker.running.pid for place, worker in self._started.items()}

    def start(self, place: int) -> None:
        if place in self._started:  # of no more use, though it runs
            self._started[place].running.kill()
            self._started.pop(place).end()
        share = self._shares[place]
        ours, theirs = Pipe()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with the process
        with theirs:
            running = self._launch(theirs, share, errors)
        self._started[place] = _Process(running, ours, errors)
        self._send(place, Setting(self._experiment, self._make_engine, share.threads))

    def send(self, place: int, order: Order) -> None:
        self._send(place, order)

    def receive(self) -> tuple[int, Answer]:
        places = {id(worker.link): place for place, worker in self._started.items()}
        (link, *_) = wait([worker.link for worker in self._started.values()])
        place = places[id(link)]
        try:
            answer: Answer = self._started[place].link.recv()
        except (EOFError, OSError):
            return place, Lost(self._started.pop(place).end())
        return place, answer

    def close(self) -> None:
        for worker in self._started.values():
            worker.running.kill()
        while self._started:
            self._started.popitem()[1].end()

    def _send(self, place: int, message: Any) -> None:
        with suppress(OSError):  # it is gone, which the end of what it says will tell
            self._started[place].link.send(message)
