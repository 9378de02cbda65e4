"""Stopping a run and going on with it. Only there with ``--control``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from lora_search.dashboard.watching import process_of, read_live
from lora_search.errors import StudyError
from lora_search.spec import load_experiment
from lora_search.store.files import EXPERIMENT_FILE, results_of
from lora_search.store.lock import has_ended, holder_of

LOG_FILE = ".dashboard-run.log"
_AT_WORK = "A run is at work here already."


class Control:
    """Stops runs, and starts them in processes that outlive the dashboard."""

    def __init__(self) -> None:
        self._started: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def stop(self, folder: Path) -> str:
        """Ask the run to end: it records what is finished first. Returns what to tell the user.

        By SIGTERM, since Ctrl-C's signal is ignored by what a script started in the background.
        """
        process = process_of(folder)
        if process is None:
            live = read_live(folder)
            elsewhere = live is not None and live["running"]
            return "The run is on another machine: stop it there." if elsewhere else "No run is at work here."
        try:
            asked = _terminated(folder, process)
        except PermissionError:
            return f"The run, process {process}, is another user's: ask there."
        return "Asked to stop: what is finished is recorded." if asked else "No run is at work here."

    def resume(self, folder: Path) -> str:
        """Go on with the study. Returns what to tell the user.

        Raises:
            StudyError: the folder is not called like its study, so a run would make another one elsewhere.
            ExperimentError: its experiment cannot be read.
        """
        results = _results_to_go_on_in(folder)
        with self._lock:  # of two pages
            for place in [place for place, run in self._started.items() if run.poll() is not None]:
                del self._started[place]  # waited for, as long as this is its parent
            place, live, holder = folder.resolve(), read_live(folder), holder_of(folder)
            speaks = live is not None and live["running"]
            silent = holder is not None and not has_ended(holder)  # it has not begun to speak
            if speaks or silent or place in self._started:  # and loads data and model
                return _AT_WORK
            command = [sys.executable, "-c", "from lora_search.cli import main; main()", "run"]
            with (folder / LOG_FILE).open("ab") as log:
                self._started[place] = subprocess.Popen(
                    [*command, str(folder / EXPERIMENT_FILE), "--results", str(results)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return f"Started; it writes to {LOG_FILE} in the study's folder."


def _results_to_go_on_in(folder: Path) -> Path:
    """Where the run is told that studies are.

    Raises:
        InputError: as of ``Control.resume``.
    """
    path = folder / EXPERIMENT_FILE
    if not path.exists():
        raise StudyError.about(path, "must be there", got="none", hint=f"lora-search doctor {folder} writes it")
    name = load_experiment(path).name
    results = results_of(folder, name)
    if results is None:
        rule = f"must be called {name}, as its study, for a run to go on with it"
        raise StudyError.about(folder, rule, got="a renamed folder or a copy")
    return results.absolute()


def _terminated(folder: Path, process: int) -> bool:
    """Send SIGTERM to the run of a folder, and to no process that was given its number since.

    Raises:
        PermissionError: it is another user's.
    """
    if not hasattr(os, "pidfd_open"):  # not Linux
        os.kill(process, signal.SIGTERM)
        return True
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return False
    try:
        if process_of(folder) != process:  # asked again, now that the number can become nobody else's
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
