"""Stopping a run and going on with it. Only there with ``--control``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lora_search.dashboard.watching import process_of
from lora_search.store.files import EXPERIMENT_FILE

LOG_FILE = ".dashboard-run.log"


def stop(folder: Path) -> str:
    """Ask the run to end: it records what is finished first. Returns what to tell the user.

    By SIGTERM, since Ctrl-C's signal is ignored by what a script started in the background.
    """
    process = process_of(folder)
    if process is None:
        return "No run is at work here."
    os.kill(process, signal.SIGTERM)
    return "Asked to stop: what is finished is recorded."


def resume(folder: Path) -> str:
    """Go on with the study in a process that outlives the dashboard. Returns what to tell the user."""
    if process_of(folder) is not None:
        return "A run is at work here already."
    command = [sys.executable, "-c", "from lora_search.cli import main; main()", "run"]
    with (folder / LOG_FILE).open("ab") as log:
        subprocess.Popen(
            [*command, str(folder / EXPERIMENT_FILE), "--results", str(folder.resolve().parent)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return f"Started; it writes to {LOG_FILE} in the study's folder."
