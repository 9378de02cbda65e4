"""What a run says of itself for whoever looks on: ``live.json`` in the study's folder."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_search.store.files import LIVE_FILE, temporary_name
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.progress import Estimate, StudyProgress, duration
from lora_search.training import Step

_LIVE_SECONDS = 1.0
_MOST_LOSSES = 200
_MOST_CURVES = 40
_MOST_SPOTS = 60


class Curves:
    """The loss of each training of a pack, as means over the steps between two times it is told."""

    def __init__(self) -> None:
        self._spots: dict[CellKey, list[list[float]]] = {}
        self._heard: dict[CellKey, list[float]] = {}
        self._step = 0

    def hear(self, step: Step) -> None:
        """Note the losses of one step; of a pack of very many, those of the first."""
        for key, loss in step.losses.items():
            if math.isfinite(loss) and (key in self._heard or len(self._heard) < _MOST_CURVES):
                self._heard.setdefault(key, []).append(loss)
        self._step = step.step

    def told(self) -> list[dict[str, Any]]:
        """Every curve: ``cell`` (trial, repeat, fold) and ``losses`` (step, mean loss until then)."""
        for key, heard in self._heard.items():
            if heard:
                spots = self._spots.setdefault(key, [])
                spots.append([self._step, round(sum(heard) / len(heard), 4)])
                _thin(spots, _MOST_SPOTS)
                heard.clear()
        return [{"cell": [key.trial, key.repeat, key.fold], "losses": spots} for key, spots in self._spots.items()]


class LiveFile:
    """Writes ``live.json`` into the study's folder, at most once a second, and passes everything on.

    The dashboard follows a run by it: who runs, how far it is, and the losses of the trainings under way. Each file is
    whole (written beside its place and renamed); none is awaited by anyone, so none is brought to the disk, and one
    that cannot be written is no reason to stop a run.

    Args:
        shown: who else is told.
        folder: the study's.
        clock: seconds, from any start.
    """

    def __init__(self, shown: StudyProgress, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown
        self._path = folder / LIVE_FILE
        self._clock = clock
        self._written = -math.inf
        self._share = 0.0
        self._estimate = Estimate(0, 0, clock)
        self._said: dict[str, Any] = {
            "state": "running", "process": os.getpid(), "machine": os.uname().nodename, "share": 0.0, "left": None,
            "left_words": "", "title": "", "epoch": 0, "epochs": 0, "step": 0, "steps": 0, "losses": [],
            "curves": [],
        }  # fmt: skip
        self._curves = Curves()

    def begin(
        self, name: str, trials: int, cells: int, done: float, ahead: float, best: float | None, lower: bool = False
    ) -> None:
        self._estimate = Estimate(done, ahead, self._clock)
        self._write(0.0)
        self._shown.begin(name, trials, cells, done, ahead, best, lower)

    def expect(self, ahead: float) -> None:
        self._estimate.expect(ahead)
        self._shown.expect(ahead)

    def note(self, sentence: str) -> None:
        self._shown.note(sentence)

    def pack(self, title: str, work: float) -> None:
        self._estimate.begin_pack(work)
        self._said |= {"title": title, "epoch": 0, "step": 0, "steps": 0, "losses": [], "curves": []}
        self._curves = Curves()
        self._share = 0.0
        self._write(0.0)
        self._shown.pack(title, work)

    def step(self, step: Step) -> None:
        self._share = step.step / step.steps
        self._curves.hear(step)
        if self._clock() - self._written >= _LIVE_SECONDS or step.step == step.steps:
            losses = self._said["losses"]
            if math.isfinite(step.loss):
                losses.append([step.step, round(step.loss, 5)])
            _thin(losses, _MOST_LOSSES)
            self._said |= {"epoch": step.epoch, "epochs": step.epochs, "step": step.step, "steps": step.steps}
            self._said["curves"] = self._curves.told()
            self._write(self._share)
        self._shown.step(step)

    def trial(self, record: TrialRecord, score: float | None) -> None:
        self._shown.trial(record, score)

    def end(self) -> None:
        self._said |= {"state": "ended", "losses": [], "curves": [], "title": ""}
        self._write(self._share)
        self._shown.end()

    def _write(self, share: float) -> None:
        total, left = self._estimate.total, self._estimate.left(share)
        self._said |= {
            "share": self._estimate.at(share) / total if total > 0 else 1.0,
            "left": left,
            "left_words": "" if left is None else duration(left),
            "updated": time.time(),
        }
        self._written = self._clock()
        temporary = temporary_name(self._path)
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self._said), encoding="utf-8")
            temporary.replace(self._path)


def _thin(spots: list[list[float]], most: int) -> None:
    """Every other one goes where there are too many; the first and the last stay."""
    if len(spots) > most:
        del spots[1:-1:2]
