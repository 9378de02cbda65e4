"""What disk and database refuse, told in one line; and a lock whose holder is gone."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import pytest
from store_builders import ENVIRONMENT, experiment

from lora_search.errors import StudyError
from lora_search.store.faults import GOING_ON, storage_errors_as_study_errors
from lora_search.store.files import write_atomically
from lora_search.store.ledger import Ledger


def told(folder: Path, error: BaseException) -> str:
    with pytest.raises(StudyError) as caught, storage_errors_as_study_errors(folder):
        raise error
    (line,) = caught.value.mistakes
    assert caught.value.__cause__ is error
    return line


def test_a_full_disk_is_told_with_how_to_go_on(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    line = f"{tmp_path}: must be a folder that can be written to, got No space left on device; {GOING_ON}"
    assert told(tmp_path, error) == line
    assert told(tmp_path / "gone", error) == f"{tmp_path / 'gone'}: {line.split(': ', 1)[1].split('; ')[0]}"


def test_what_sqlite_says_is_found_behind_what_others_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "full.db"
    connection = sqlite3.connect(path)
    connection.execute("pragma page_size = 4096")
    connection.execute("create table t (x)")
    connection.execute("pragma max_page_count = 2")
    try:
        try:
            connection.execute("insert into t values (zeroblob(100000))")
        except sqlite3.Error as error:
            raise RuntimeError("a storage's own words") from error
    except RuntimeError as error:
        line = told(tmp_path, error)
    connection.close()
    assert line == (
        f"{tmp_path / 'study.db'}: must have room on its disk, got a full one (database or disk is full); {GOING_ON}"
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        OSError(errno.EPIPE, "Broken pipe"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/somewhere/else"),
        sqlite3.IntegrityError("a bug too"),
    ],
)
def test_anything_else_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, storage_errors_as_study_errors(tmp_path):
        raise error
    assert caught.value is error


def test_a_file_that_cannot_be_written_leaves_nothing_and_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.csv"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["trials.csv"]
    assert path.read_text() == "old"


def test_a_lock_that_outlives_its_run_in_what_it_forked_is_waited_for(tmp_path: Path) -> None:
    """A killed run's lanes have its files open until they notice that it is gone."""
    child = os.fork()
    if child == 0:
        ledger = Ledger.open(tmp_path / "s", experiment(), ENVIRONMENT)
        if os.fork() == 0:
            time.sleep(1.0)
            os._exit(0)
        assert ledger.trials() == []
        os._exit(0)
    os.waitpid(child, 0)
    with Ledger.open(tmp_path / "s", experiment(), ENVIRONMENT) as ledger:
        assert ledger.trials() == []
