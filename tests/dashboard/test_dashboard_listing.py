"""The list of studies: who is read, how often, and who waits for whom."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dashboard_builders import record
from fabricated_studies import sampled_rows

from lora_search.dashboard import listing, watching
from lora_search.dashboard.listing import Listing
from lora_search.dashboard.shelf import Shelf
from lora_search.errors import StudyError
from lora_search.store.address import DatabaseAddress, write_address

SILENT, OTHER = "postgresql://silent/studies", "postgresql://other/studies"


class Clock:
    """What stands for ``time``: the seconds that a test says have passed, and what reading is said to take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(listing, "time", found)
    return found


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A study here, two of a database, and one of another database."""
    record(tmp_path / "here", sampled_rows(2))
    for name, storage in (("a", SILENT), ("b", SILENT), ("c", OTHER)):
        (tmp_path / name).mkdir()
        write_address(tmp_path / name, DatabaseAddress(storage, name))
    for path in tmp_path.glob("*/*"):
        os.utime(path, (1, 1))
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Counter[str]:
    """How often each study was read; what that takes of a processor, a second."""
    found: Counter[str] = Counter()

    def counted(name: str, folder: Path) -> dict[str, Any]:
        found[name] += 1
        if name == "here":  # the others are read in threads at the same time
            clock.worked += 1.0
        return {"name": name, "problem": f"read {found[name]} times"}

    monkeypatch.setattr(listing, "_summary", counted)
    return found


def touch(folder: Path) -> None:
    """As a run does it that records something."""
    (path,) = [path for path in (folder / "study.db", folder / "storage.json") if path.exists()]
    moment = path.stat().st_mtime + 1
    os.utime(path, (moment, moment))


def said(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["name"]: row.get("problem", row.get("state")) for row in rows}


def test_a_study_is_read_once_for_all_pages_and_rests_as_long_as_that_took(
    results: Path, clock: Clock, read: Any
) -> None:
    shelf = Shelf(results)
    for _ in range(3):
        assert said(shelf.rows())["here"] == "read 1 times"
    touch(results / "here")
    clock.now = 2.9  # of three times the second that it took
    assert said(shelf.rows())["here"] == "read 1 times"
    clock.now = 3.1
    assert said(shelf.rows())["here"] == said(shelf.rows())["here"] == "read 2 times"
    clock.now = 100.0  # and nothing was recorded
    shelf.rows()
    assert read["here"] == 2


def test_a_time_to_come_is_no_reason_to_read_again(results: Path, clock: Clock, read: Any) -> None:
    os.utime(results / "here" / "study.db", (2e9, 2e9))
    shelf = Shelf(results)
    for clock.now in (0.0, 10.0, 20.0):
        shelf.rows()
    assert watching.look_at(results / "here").settled
    assert read["here"] == 1


def test_a_silent_database_keeps_no_other_study_waiting(
    results: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_PATIENCE", 0.0)
    answers = threading.Event()

    def summary(name: str, folder: Path) -> dict[str, Any]:
        if name in "ab":
            answers.wait(60)
        return {"name": name, "problem": "read"}

    monkeypatch.setattr(listing, "_summary", summary)
    found = Listing(Shelf(results).folders)
    assert said(found.rows()) | {"c": "read"} == {
        "a": "its database has not answered yet", "b": "its database has not answered yet", "c": "read", "here": "read",
    }  # fmt: skip
    asking = [thread for thread in found._asking.values() if thread.is_alive()]
    found.rows()
    assert set(asking) <= set(found._asking.values()), "it is asked once at a time"
    answers.set()
    for thread in asking:
        thread.join()
    assert set(said(found.rows()).values()) == {"read"}


def test_what_a_database_failed_with_is_said_of_all_its_studies_for_a_while(
    results: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    silent = True

    def summary(name: str, folder: Path) -> dict[str, Any]:
        asked[name] += 1
        if silent and name in "ab":
            raise StudyError.about(SILENT, "must be a database that answers", got="nothing") from OSError()
        return {"name": name, "problem": "read"}

    monkeypatch.setattr(listing, "_summary", summary)
    monkeypatch.setattr(listing, "is_lost", lambda error: isinstance(error.__cause__, OSError))
    monkeypatch.setattr(listing, "_PATIENCE", 60.0)
    found = Listing(Shelf(results).folders)
    why = f"{SILENT}: must be a database that answers, got nothing"
    expected = {"a": why, "b": why, "c": "read", "here": "read"}
    for clock.now in (0.0, 10.0, 29.0):
        assert said(found.rows()) == expected
        touch(results / "b")
    assert asked == {"a": 1, "c": 1, "here": 1}
    silent = False
    clock.now = 31.0
    assert set(said(found.rows()).values()) == {"read"}


def test_what_one_study_lacks_is_said_of_that_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def summary(name: str, folder: Path) -> dict[str, Any]:
        if name == "a":
            raise StudyError.about(SILENT, "must hold a study a", got="none of that name")
        return {"name": name, "problem": "read"}

    monkeypatch.setattr(listing, "_summary", summary)
    monkeypatch.setattr(listing, "_PATIENCE", 60.0)
    rows = said(Shelf(results).rows())
    assert rows.pop("a") == f"{SILENT}: must hold a study a, got none of that name"
    assert set(rows.values()) == {"read"}
