"""Processes that begin as from a shell, but for the seconds of importing libraries: forked from a server that has only
imported.

Forked from a test's own process they would take torch for ready to compute with the threads of earlier tests, which do
not survive a fork, and crash. One server serves all tests of a process.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from on_postgresql import studies_in_databases

SECONDS = 240
"""For a process to do what is awaited of it."""
PRELOADED = [
    "lora_search.study.runner",
    "lora_search.study.refit",
    "lora_search.reporting.page",
    "transformers.models.bert.modeling_bert",
    "pytest",
]


def clean_context() -> ForkServerContext:
    """Makes such processes; as ``multiprocessing``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Forked:
    """One of them that runs a function, as far as it is asked here like a ``subprocess.Popen``."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.process = clean_context().Process(target=target, args=args)
        self.process.start()
        self.pid = self.process.pid
        self.kill = self.process.kill

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("a process", timeout or 0.0)
        return self.process.exitcode


class ForkedCommand(Forked):
    """``lora-search ARGUMENTS`` in a folder; ``terminal`` is one of which it is to be the leader, instead of pipes.

    ``out`` and ``err`` are where the pipes end here.
    """

    def __init__(self, arguments: Sequence[object], folder: Path, terminal: int | None = None) -> None:
        ends = [os.pipe(), os.pipe()] if terminal is None else []
        self.out, self.err = [mine for mine, _ in ends] or (None, None)
        theirs = [terminal, terminal, terminal] if terminal is not None else [end for _, end in ends]
        super().__init__(
            run_command,
            [str(argument) for argument in arguments],
            folder,
            dict(os.environ),
            [Connection(os.dup(end)) for end in theirs],
        )
        for _, end in ends:
            os.close(end)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def read_until(descriptor: int, awaited: str | None = None) -> str:
    """What a process writes, up to the piece that has ``awaited`` in it; without, all."""
    deadline, text = time.monotonic() + SECONDS, ""
    while time.monotonic() < deadline and (awaited is None or awaited not in text):
        if select.select([descriptor], [], [], 1)[0]:
            try:
                chunk = os.read(descriptor, 65536)
            except OSError:  # how Linux says that nobody is left on the other side of a terminal
                break
            if not chunk:
                break
            text += chunk.decode(errors="replace")
    return text


def read_all(descriptor: int, awaited: str, then: Callable[[], object]) -> str:
    """All that a process writes; ``then`` is called once, when ``awaited`` is in it."""
    text = read_until(descriptor, awaited)
    if awaited in text:
        then()
    return text + read_until(descriptor)


def run_command(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], ends: Sequence[Connection]
) -> None:
    """What such a process does: input and output are three ends, those of a terminal, or two, of pipes."""
    if len(ends) == 3:
        os.setsid()
    descriptors = [end.fileno() for end in ends]
    if len(ends) == 2:
        descriptors.insert(0, os.open(os.devnull, os.O_RDONLY))
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    for end in ends:
        end.close()
    if len(ends) == 3:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(place, mode, buffering=1) for place, mode in enumerate("rww"))
    os.chdir(folder)
    os.environ.update(environment)  # the server's is as old as the server
    torch.set_num_threads(1)
    sys.argv = ["lora-search", *arguments]
    from lora_search.cli import main

    with studies_in_databases():
        main()
