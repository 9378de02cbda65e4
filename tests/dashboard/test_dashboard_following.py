"""Studies whose run is on another machine: what is recorded there is noticed here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_search.dashboard.following import Follower, following
from lora_search.dashboard.shelf import Shelf
from lora_search.dashboard.watching import last_change, look_at
from lora_search.errors import StudyError
from lora_search.store.address import DatabaseAddress, write_address

ONE, OTHER = "postgresql://one/studies", "postgresql://other/studies"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, storage in (("a", ONE), ("b", ONE), ("c", OTHER)):
        (tmp_path / name).mkdir()
        write_address(tmp_path / name, DatabaseAddress(storage, name))
        os.utime(tmp_path / name / "storage.json", (1, 1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.db").touch()
    return tmp_path


def touched(results: Path) -> set[str]:
    """The folders of which a page would say that something was recorded; they are as before then."""
    found = set()
    for folder in Shelf(results).folders().values():
        if (folder / "storage.json").exists() and last_change(folder) != 10**9:
            found.add(folder.name)
            os.utime(folder / "storage.json", (1, 1))
    return found


def test_what_was_recorded_elsewhere_is_noticed_once(results: Path) -> None:
    said = {(ONE, "a"): "1", (ONE, "b"): "5", (OTHER, "c"): "2"}
    asked = []

    def ask(storage, studies):
        asked.append((storage, [study.study for study in studies]))
        return {study: said[storage, study.study] for study in studies if (storage, study.study) in said}

    follower = Follower(Shelf(results), ask)
    assert follower.turn()
    assert asked == [(ONE, ["a", "b"]), (OTHER, ["c"])]
    assert touched(results) == {"a", "b", "c"}, "a page may have been read before the first look"
    assert follower.turn()
    assert touched(results) == set()
    said[ONE, "b"] = "6"
    before = look_at(results / "b")
    assert follower.turn()
    assert look_at(results / "b") != before
    assert touched(results) == {"b"}
    del said[OTHER, "c"]
    (results / "a" / "storage.json").write_text("damaged")
    os.utime(results / "a" / "storage.json", (1, 1))
    assert follower.turn()
    assert touched(results) == set()


def test_a_database_that_does_not_answer_keeps_no_other_waiting(results: Path) -> None:
    def ask(storage, studies):
        if storage == ONE:
            raise StudyError("must be a database that answers")
        return dict.fromkeys(studies, "1")

    assert not Follower(Shelf(results), ask).turn()
    assert touched(results) == {"c"}


def test_a_dashboard_that_ends_does_not_wait(results: Path) -> None:
    with following(Shelf(results)):
        pass
