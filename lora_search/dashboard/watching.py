"""What a study's folder looks like from outside: whether anything changed, and whether a run is at work in it.

A look costs a few ``stat`` calls and opens nothing, so that a quiet study costs nothing to follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_search.store.files import LIVE_FILE, STORAGE_FILE, STUDY_FILE, VERDICT_FILE
from lora_search.store.lock import has_ended, holder_of, named

_LOG = f"{STUDY_FILE}-wal"
_WATCHED = (STUDY_FILE, _LOG, VERDICT_FILE)
_ELSEWHERE = (STORAGE_FILE, VERDICT_FILE)
"""Of a study in PostgreSQL: its run touches the first whenever it has recorded something, and where it runs on another
machine the dashboard does (``following``)."""
_ALL = 0.9995
_PAUSE = 1.0
_REST = 3.0
_CLOCK_STEP = 20_000_000
"""Nanoseconds within which two writes may leave the same time on a file."""


@dataclass(frozen=True)
class Look:
    """Times and sizes of a study's files. Two equal looks, the later one settled, mean that nothing was recorded."""

    files: tuple[tuple[int, int, int] | None, ...]
    settled: bool

    @property
    def database(self) -> int:
        """The database's number in the file system: another study of the same name has another."""
        return self.files[0][0] if self.files[0] is not None else 0

    @property
    def token(self) -> str:
        """A short name of this state of the study."""
        return hashlib.blake2s(repr(self.files).encode(), digest_size=6).hexdigest()


def look_at(folder: Path) -> Look | None:
    """The state of a study's files; None where there is no study any more."""
    for names in (_ELSEWHERE, _WATCHED):
        files = tuple(_recorded(folder / name) for name in names)
        if files[0] is not None:
            break
    else:
        return None
    # a time to come, of a clock that was put back or of another machine's, is as settled as one that is past
    now = time.time_ns()
    return Look(files, all(abs(now - times[1]) > _CLOCK_STEP for times in files if times is not None))


def _recorded(path: Path) -> tuple[int, int, int] | None:
    """Of an empty log nothing: whoever reads a database that nobody has open lays one beside it meanwhile."""
    times = _times(path)
    return None if times is not None and path.name == _LOG and times[2] == 0 else times


def rest(seconds: float) -> float:
    """Seconds to wait until a study is read again.

    A second at least, since a study may finish many cells at once, and so long that looking on takes a quarter of one
    core at most, however large the study.

    Args:
        seconds: of a processor that it took to read and judge it.
    """
    return max(_PAUSE, _REST * seconds)


def last_change(folder: Path) -> int:
    """When a study's database was last written to, in nanoseconds; 0 where there is none."""
    look = look_at(folder)
    return 0 if look is None or look.files[0] is None else look.files[0][1]


def _times(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def live_stamp(folder: Path) -> int:
    """When ``live.json`` was last written, in nanoseconds; 0 where there is none."""
    times = _times(folder / LIVE_FILE)
    return 0 if times is None else times[1]


def read_live(folder: Path) -> dict[str, Any] | None:
    """What a run last said of itself, as the page shows it; None where no run has said anything that can be read.

    Returns:
        ``running``, ``words`` (a line for people), ``share`` (done, 0 to 1), ``unfinished`` (the run meant to train
        more, extra repeats of finished trials among it), and of the training under way ``title``,
        ``steps``, ``losses`` (their mean) and ``curves`` (of each, by ``cell``).
    """
    try:
        said = json.loads((folder / LIVE_FILE).read_text(encoding="utf-8"))
        running = said["state"] == "running" and _is_alive(folder, said)
        share = min(1.0, max(0.0, float(said["share"])))
        losses = _curve(said["losses"])
        curves = [
            {"cell": [int(part) for part in curve["cell"]], "losses": _curve(curve["losses"])}
            for curve in said.get("curves", [])
        ]
        return {
            "running": running,
            "words": _words(said, share) if running else "Not running: the same command goes on with it.",
            "share": share,
            "unfinished": share < _ALL,
            "left": said["left"],
            "title": str(said["title"]),
            "steps": int(said["steps"]),
            "losses": losses,
            "curves": curves,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def process_of(folder: Path) -> int | None:
    """The process of the run at work in a folder, where that is one of this machine; None where there is none."""
    try:
        said = json.loads((folder / LIVE_FILE).read_text(encoding="utf-8"))
        mine = said["state"] == "running" and said["machine"] == os.uname().nodename and _is_alive(folder, said)
        return int(said["process"]) if mine else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_alive(folder: Path, said: dict[str, Any]) -> bool:
    """Whether the run that spoke is still there.

    On another machine: whether it spoke lately. On this one: whether it has the folder's lock, as a run of a study in
    PostgreSQL has too. Its number alone may be another process's by now.
    """
    if said["machine"] != os.uname().nodename:
        return time.time() - float(said["updated"]) < 60
    holder = named(int(said["process"]))
    # a run that was killed has forked what ends a moment later, and has the lock until then
    return holder_of(folder) == holder and not has_ended(holder)


def _curve(spots: list[Any]) -> list[list[float]]:
    """(step, loss) of a training."""
    return [[int(step), float(loss)] for step, loss in spots]


def _words(said: dict[str, Any], share: float) -> str:
    parts = [f"{100 * share:.0f} % done"]
    if said["left"]:
        parts.append(f"about {said['left_words']} left")
    if said["title"]:
        parts.append(f"training {said['title']}")
    if said["steps"]:
        parts.append(f"epoch {said['epoch']} of {said['epochs']}, step {said['step']} of {said['steps']}")
    return " · ".join(str(part) for part in parts)
