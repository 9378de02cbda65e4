"""The studies of a results folder, each read once per state and kept until it changes.

Names come from the list of studies that are there, so that no name leads out of the folder. A study that cannot be
read - half-written, of another version, no study at all - has a sentence in place of tables.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from lora_search.dashboard.listing import Listing
from lora_search.dashboard.watching import Look, last_change, look_at
from lora_search.errors import InputError, StudyError
from lora_search.plots.landscape import Terrain
from lora_search.plots.rates import rates_data
from lora_search.plots.web import judged_view, rates_view, study_payload
from lora_search.plots.web.payload import MOST_JUDGED_LIVE
from lora_search.statistics.judging import Judge
from lora_search.statistics.verdict import Verdict
from lora_search.store.reader import list_studies, read_study

_MOST_KEPT = 8
_MOST_JUDGEMENTS = 300
_PAUSE = 0.05
_MOST_FITTED = 120
"""Trials up to which a page shows what is expected of other learning rates: fitting that takes a while."""


class Snapshot:
    """One study as it stood at one look, with what was computed from it.

    Attributes:
        look: what its files looked like.
        tables: what was in them.
        seconds: of a processor, that it took to read the study and to judge what the page shows first.
    """

    def __init__(self, look: Look, folder: Path) -> None:
        began = time.thread_time()
        self.look = look
        self.tables = read_study(folder)
        self.seconds = time.thread_time() - began
        self._kept: Judge | None = None
        self._placed: Terrain | None = None
        self._verdict: Mapping[str, Any] | None = None
        self._views: dict[tuple[float, float], dict[str, Any]] = {}
        self._payload: dict[str, Any] | None = None
        self._rates: list[dict[str, Any]] | None = None
        self._lock = threading.RLock()

    def verdict(self) -> Mapping[str, Any]:
        """The recorded verdict; before the first, what the trials so far say."""
        if self._verdict is None:  # what is known already waits for nothing that is being judged
            with self._lock:
                self._verdict = self._verdict or self.tables.verdict() or self._judged().to_dict()
        return self._verdict

    def judged(self, margin: float, confidence: float) -> dict[str, Any]:
        """The study at another margin and confidence, by the package's own judge.

        Raises:
            ExperimentError: one of them is out of range.
            StudyError: there are too many trials to compare all with all while someone waits.
        """
        asked = (margin, confidence)
        if (kept := self._views.get(asked)) is not None:
            return kept
        with self._lock:
            if asked not in self._views:
                if len(self._views) >= _MOST_JUDGEMENTS:
                    self._views.clear()
                spec = self.tables.experiment.verdict
                recorded = asked == (spec.margin, spec.confidence)
                if not recorded and int((self.tables.trials["state"] == "complete").sum()) > MOST_JUDGED_LIVE:
                    raise StudyError.about(
                        "margin",
                        f"another one takes minutes with more than {MOST_JUDGED_LIVE:,} complete trials",
                        hint=f"lora-search verdict {quote(str(self.tables.folder))} --margin {margin:g} says it",
                    )
                verdict = self.verdict() if recorded else self._judged(margin, confidence).to_dict()
                self._views[asked] = judged_view(self.tables, verdict, self._terrain())
            return self._views[asked]

    def judge_ahead(self, margin: float, confidence: float) -> None:
        """Judge at the other margins that the page offers, the nearest first, before anyone moves the slider there.

        Only what changes no more: while a study goes on, each of its cells would have it all judged anew.
        """
        payload = self.payload()
        if not payload["unfinished"]:
            for stop in sorted(payload["stops"]["margins"], key=lambda stop: abs(stop - margin)):
                self.judged(stop, confidence)
                time.sleep(_PAUSE)  # whoever waits for something else comes first

    def _judged(self, margin: float | None = None, confidence: float | None = None) -> Verdict:
        return self._judge().verdict(margin, confidence)

    def _judge(self) -> Judge:
        if self._kept is None:
            self._kept = Judge(self.tables)
        return self._kept

    def _terrain(self) -> Terrain:
        if self._placed is None:
            self._placed = Terrain(self.tables.trials, self.tables.cells, self.tables.experiment.verdict.metric)
        return self._placed

    def payload(self) -> dict[str, Any]:
        """What the page draws."""
        if self._payload is not None:
            return self._payload
        with self._lock:
            if self._payload is None:
                began = time.thread_time()
                judged = judged_view(self.tables, self.verdict(), self._terrain())
                self._payload = study_payload(self.tables, judged, self.look.token)
                self.seconds += time.thread_time() - began
            return self._payload

    def rates(self) -> list[dict[str, Any]]:
        """What is expected of other learning rates; nothing where fitting that would take too long."""
        with self._lock:
            if self._rates is None:
                few = len(self.tables.trials) <= _MOST_FITTED
                found = rates_data(self.tables, self._judge().study, self.verdict()) if few else None
                self._rates = [] if found is None else rates_view(found)
            return self._rates


class Shelf:
    """All studies of a results folder, or the one study that the folder itself is."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._listing = Listing(self.folders)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def folders(self) -> dict[str, Path]:
        """Every study that is there, by the name of its folder."""
        if look_at(self.results) is not None:
            return {self.results.resolve().name: self.results}
        return {folder.name: folder for folder in list_studies(self.results)}

    def folder(self, name: str) -> Path | None:
        """The folder of a study by name; None where there is none of that name."""
        return self.folders().get(name)

    def newest(self) -> str | None:
        """The name of the study that was written to last; None where there is none."""
        folders = self.folders()
        return max(folders, key=lambda name: last_change(folders[name]), default=None)

    def prepare(self) -> None:
        """Read the newest study, and judge it as its page shows it first: who opens it then need not wait for that."""
        name = self.newest()
        if name is not None:
            with contextlib.suppress(InputError):  # whoever opens it is told
                self.snapshot(name).payload()

    def snapshot(self, name: str) -> Snapshot:
        """The study as it stands.

        Raises:
            StudyError: it is not there, or cannot be read.
        """
        folder = self.folder(name)
        look = None if folder is None else look_at(folder)
        if folder is None or look is None:
            raise StudyError.about(name, "must be a study of this folder")
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # one reader a study: clients that ask at once share what it finds
            kept = self._snapshots.get(name)
            if kept is not None and kept.look.files == look.files and kept.look.settled:
                return kept
            found = Snapshot(look, folder)
            with self._lock:
                self._snapshots[name] = found
                self._snapshots.move_to_end(name)
                while len(self._snapshots) > _MOST_KEPT:
                    self._snapshots.popitem(last=False)
            return found

    def seconds(self, name: str) -> float:
        """What the last reading of a study took; 0 where it was not read."""
        kept = self._snapshots.get(name)
        return 0.0 if kept is None else kept.seconds

    def rows(self) -> list[dict[str, Any]]:
        """A line for every study, for the list: how far it is, what it found, or why it cannot be read."""
        return self._listing.rows()
