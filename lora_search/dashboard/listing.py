"""The list of studies: a line for each, kept until something is recorded, and read for all pages together.

Studies in a database are read in a thread of their own, one for each database: the list does not wait for one that is
silent, and what it failed to say of one study is said of all of them for a while, not asked for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_search.dashboard.watching import Look, look_at, read_live, rest
from lora_search.errors import InputError, StudyError
from lora_search.plots.formats import unit_of
from lora_search.store.address import address_in
from lora_search.store.reader import read_study
from lora_search.store.server_faults import is_lost
from lora_search.store.status import study_status

_PATIENCE = 1.0
"""Seconds that a list waits for databases."""
_SILENCE = 30.0
"""Seconds for which a database that did not answer is not asked again."""
_UNHEARD = "its database has not answered yet"


@dataclass(frozen=True)
class _Due:
    """A study that is to be read."""

    name: str
    folder: Path
    look: Look


@dataclass(frozen=True)
class _Line:
    """What was read of a study.

    Attributes:
        look: what its files looked like; None where it is to be read again though they stay so.
        row: what the list says.
        until: when it is read again at the earliest.
    """

    look: Look | None
    row: dict[str, Any]
    until: float


class Listing:
    """The lines of all studies.

    Args:
        folders: tells the studies that are there, by name.
    """

    def __init__(self, folders: Callable[[], Mapping[str, Path]]) -> None:
        self._folders = folders
        self._lines: dict[str, _Line] = {}
        self._asking: dict[str, threading.Thread] = {}
        self._silent: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def rows(self) -> list[dict[str, Any]]:
        """A line for every study: how far it is, what it found, or why it cannot be read."""
        with self._lock:  # what one page has read the others need not
            folders = self._folders()
            looks = {name: look_at(folder) for name, folder in folders.items()}
            here, elsewhere = self._due(folders, looks)
            asked = [self._ask(storage, due) for storage, due in elsewhere.items() if not self._is_asked(storage)]
            for one in here:
                self._read(one)
        end = time.monotonic() + _PATIENCE
        for thread in asked:
            thread.join(max(0.0, end - time.monotonic()))
        return [self._row(name, folder, looks[name]) for name, folder in folders.items()]

    # -- reading -------------------------------------------------------------------------------------------------

    def _due(
        self, folders: Mapping[str, Path], looks: Mapping[str, Look | None]
    ) -> tuple[list[_Due], dict[str, list[_Due]]]:
        """What changed and has rested: of studies here, and of those in databases by the database."""
        here: list[_Due] = []
        elsewhere: dict[str, list[_Due]] = {}
        for name, folder in folders.items():
            look, line = looks[name], self._lines.get(name)
            if look is None or (line is not None and (_stands(line, look) or time.monotonic() < line.until)):
                continue
            storage = _storage_of(folder)
            (here if storage is None else elsewhere.setdefault(storage, [])).append(_Due(name, folder, look))
        return here, elsewhere

    def _is_asked(self, storage: str) -> bool:
        thread = self._asking.get(storage)
        return thread is not None and thread.is_alive()

    def _ask(self, storage: str, due: list[_Due]) -> threading.Thread:
        def read() -> None:
            for one in due:
                self._read(one, storage)

        thread = self._asking[storage] = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _read(self, one: _Due, storage: str | None = None) -> None:
        """Read a study, unless the database it is in was silent just now."""
        problem, until = self._silent.get(storage or "", ("", 0.0))
        if time.monotonic() < until:
            self._lines[one.name] = _Line(None, {"name": one.name, "problem": problem}, until)
            return
        began, silent = time.thread_time(), False
        try:
            row = _summary(one.name, one.folder)
        except InputError as error:
            row = {"name": one.name, "problem": "; ".join(error.mistakes)}
            silent = storage is not None and isinstance(error, StudyError) and is_lost(error)
        until = time.monotonic() + (_SILENCE if silent else rest(time.thread_time() - began))
        if silent and storage is not None:
            self._silent[storage] = (row["problem"], until)
        self._lines[one.name] = _Line(None if silent else one.look, row, until)

    # -- telling -------------------------------------------------------------------------------------------------

    def _row(self, name: str, folder: Path, look: Look | None) -> dict[str, Any]:
        if look is None:
            return {"name": name, "problem": "its folder is gone"}
        line = self._lines.get(name)
        if line is None:
            return {"name": name, "problem": _UNHEARD}
        row, live = dict(line.row), read_live(folder)
        running = bool(live and live["running"])
        if "problem" not in row:
            # a run that has spent its trainings is at its end, however few trials that made
            left = live["unfinished"] if live else row["trials"] < row["trials_wanted"]
            finished = not row["unfinished"] and not left
            row["state"] = "running" if running else "finished" if finished else "stopped"
            row["share"] = live["share"] if live and not finished else row["share"]
            row["words"] = live["words"] if running and live else ""
        return row


def _stands(line: _Line, look: Look) -> bool:
    """Whether nothing was recorded since the line was read."""
    return line.look is not None and line.look.settled and line.look.files == look.files


def _storage_of(folder: Path) -> str | None:
    """The database that a study is in; None for its folder, and where its line has to say why that is not known."""
    try:
        address = address_in(folder)
    except InputError:
        return None
    return None if address is None else address.storage


def _summary(name: str, folder: Path) -> dict[str, Any]:
    """What the list says of a study that does not change while its files do not.

    Raises:
        InputError: it cannot be read.
    """
    tables = read_study(folder)
    status = study_status(tables)
    verdict = tables.verdict() or {}
    best = verdict.get("best")
    metric = tables.experiment.verdict.metric
    unit = unit_of(metric, tables.experiment.verdict.margin)
    return {
        "name": name,
        "base": tables.experiment.model.base,
        "data": tables.experiment.data.train,
        "verdict": status.verdict,
        "sentence": status.sentence or "No verdict yet.",
        "best": None if best is None else f"{unit.score(unit.merit(best['score_mean']))}",
        "metric": unit.metric,
        "trials": sum(status.trials.values()),
        "trials_wanted": status.trials_wanted,
        "unfinished": status.trials.get("running", 0),
        "cells": status.cells,
        "cells_wanted": status.cells_wanted,
        "share": status.cells / status.cells_wanted if status.cells_wanted else 1.0,
    }
