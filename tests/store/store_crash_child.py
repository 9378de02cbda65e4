"""Kills itself at one step of the store after another.

``python store_crash_child.py FOLDER FIRST LAST STRIDE`` runs ``scenario`` once per step of ``range(FIRST, LAST,
STRIDE)``, each time in a forked child and in a folder named after the step. A step is one use that the store's own code
makes of a file or of the database; the child dies by SIGKILL before it. The folder starts as a copy of
``FOLDER/start``, if there is one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from migrations import read_once
from store_builders import ENVIRONMENT, cell, experiment, failed_cell, trial

import lora_search.store
from lora_search.spec.facts import PRECISION
from lora_search.store.ledger import Ledger

STORE = str(Path(lora_search.store.__file__).parent)
STEPS = {"execute", "executemany", "executescript", "ftruncate", "fsync", "mkdir", "open", "replace", "unlink", "write"}


def scenario(folder: Path) -> None:
    """One short run."""
    with Ledger.open(folder, experiment(search={"trials": 30}), ENVIRONMENT) as ledger:
        if 1 not in {record.trial for record in ledger.trials()}:
            ledger.add_trial(trial(1))
        for result in (cell(1, 0, 0), failed_cell(1, 0, 1), cell(1, 0, 2)):
            if result.key not in ledger.cell_keys():
                ledger.add_cell(result)
        ledger.set_trial_state(1, "complete")
        ledger.set_fact(PRECISION, "bf16")
        ledger.write_tables()


def die_at(step: int) -> None:
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal steps
        if is_step(frame, event, argument):
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1

    sys.setprofile(count)


def is_step(frame: FrameType, event: str, argument: Any) -> bool:
    """Whether the store calls one of ``STEPS``, be it written in C or (``Path.open``) in Python."""
    if event == "c_call":
        return argument.__name__ in STEPS and in_store(frame)
    return event == "call" and frame.f_code.co_name in STEPS and in_store(frame.f_back) and not in_store(frame)


def in_store(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(STORE)


def main(folder: Path, steps: range) -> None:
    read_once()
    with TemporaryDirectory() as other:
        scenario(Path(other, "study"))  # what is imported and read on the way is there for all the children
    for step in steps:
        copy = folder / str(step)
        if (folder / "start").exists():
            shutil.copytree(folder / "start", copy)
        process = os.fork()
        if process == 0:
            die_at(step)
            scenario(copy)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != -signal.SIGKILL:
            sys.exit(f"the run ended before step {step}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(*(int(number) for number in sys.argv[2:])))
