"""What a worker process runs: ``python -m lora_search.study.executors.serving DESCRIPTOR``.

It is started as a command and not by multiprocessing, which would run the user's script again in it. The descriptor is
that of a connection to the driver; when the driver is gone, however it went, the connection breaks and the worker ends.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from lora_search.models import quiet_libraries
from lora_search.spec import Experiment
from lora_search.study.executors.messages import Stepped, answered, greeting
from lora_search.study.executors.worker import MakeEngine


@dataclass(frozen=True)
class Setting:
    """The first thing a worker process is sent.

    Attributes:
        experiment: as the driver read it.
        make_engine: see ``Worker``.
        threads: to compute with.
    """

    experiment: Experiment
    make_engine: MakeEngine
    threads: int


def serve(link: Connection) -> None:
    """Do what comes over the connection, until it ends."""
    setting: Setting = link.recv()
    torch.set_num_threads(setting.threads)
    worker, first = greeting(setting.experiment, setting.make_engine)
    link.send(first)
    while worker is not None:
        link.send(answered(worker, link.recv(), lambda step: link.send(Stepped(step))))


def serve_to_the_end(link: Connection) -> None:
    """As ``serve``; when the driver is gone, the process ends."""
    # Ctrl-C reaches every process of a terminal; the driver handles it, and ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with quiet_libraries():
            serve(link)
    except (EOFError, BrokenPipeError, ConnectionError):
        # the driver is gone; without what is run at an exit, which may wait for what was computing
        os._exit(0)


if __name__ == "__main__":
    serve_to_the_end(Connection(int(sys.argv[1])))
