"""Copies of a database: whole, or not there; and never in the place of another."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lora_search.store.copying import copies_of, copy_database

ROWS = 2_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """One whose rows are in its log."""
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table rows (text text)")
        connection.executemany("insert into rows values (?)", [("x" * 100,)] * ROWS)
        connection.commit()
        yield connection


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 40 kB."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def rows_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as copy:
        return int(copy.execute("select count(*) from rows").fetchone()[0])


def test_every_copy_has_a_name_of_its_own(database: sqlite3.Connection, tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    made = [copy_database(database, path) for _ in range(3)]
    assert [copy.name for copy in made] == ["copy.db", "copy-2.db", "copy-3.db"]
    assert [rows_in(copy) for copy in made] == [ROWS] * 3
    assert copies_of(path) == made
    path.unlink()
    assert copies_of(path) == made[1:]
    assert list(tmp_path.glob(".*")) == []


def test_a_copy_that_was_cut_short_leaves_nothing(database: sqlite3.Connection, tmp_path: Path) -> None:
    with small_files(), pytest.raises(sqlite3.Error):
        copy_database(database, tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("study.db")) == []


def test_a_damaged_database_has_no_copy_unless_that_is_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table rows (text text)")
        connection.executemany("insert into rows values (?)", [("x" * 100,)] * ROWS)
        connection.commit()
    content = bytearray(path.read_bytes())
    content[8_192:12_288] = b"\xff" * 4_096
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.DatabaseError):
            copy_database(connection, tmp_path / "copy.db")
        assert copies_of(tmp_path / "copy.db") == []
        assert copy_database(connection, tmp_path / "copy.db", sound=False).read_bytes()[8_192:8_200] == b"\xff" * 8
