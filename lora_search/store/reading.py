"""Reading ``study.db`` beside whoever is writing it, and leaving nothing behind.

A study that is kept in PostgreSQL is read there (``read_from`` knows which); the rest of this page is about SQLite.

Nothing in this package opens that file but SQLite. POSIX gives a process's locks on a file up as soon as the process
closes *any* descriptor of it, so a plain ``open`` and ``close`` beside a connection would make every other program
believe that nobody uses the database ("How To Corrupt An SQLite Database File", section 2.2).

Where the folder may be written to SQLite opens the database for writing, and is told not to write: so the last one to
leave takes the log with it. Elsewhere it is opened for reading only; and where there is no log either it is read as if
nothing could change it, for which SQLite needs to lay nothing beside it. Should somebody who may write there begin
meanwhile, the file or its log shows it, and it is read again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from lora_search.errors import StudyError
from lora_search.store.address import address_in
from lora_search.store.connection import Connection
from lora_search.store.database import BUSY_SECONDS, check_version
from lora_search.store.faults import database_error
from lora_search.store.files import STUDY_FILE, log_of
from lora_search.store.postgresql import read_remote

Value = TypeVar("Value")

_ATTEMPTS = 5
_AT_REST = "mode=ro&immutable=1"
"""How SQLite is told that nobody changes the file, so that it neither locks it nor looks for a log."""


def read_from(folder: Path, work: Callable[[Connection], Value]) -> Value:
    """What ``work`` finds in a study's database, wherever it is, all of it as it stood at one moment.

    Args:
        folder: the study's.
        work: gets a connection that cannot write, in a transaction; may be called again.

    Raises:
        StudyError: no study there, or not one of ours, or damaged; or no server.
        MachineError: it is in PostgreSQL, and psycopg is not installed.
    """
    address = address_in(folder)
    return read_file(folder, work) if address is None else read_remote(address, work)


def read_file(folder: Path, work: Callable[[Connection], Value]) -> Value:
    """As ``read_from``, of a study whose database is in its folder."""
    path = folder / STUDY_FILE
    for _ in range(_ATTEMPTS):
        before, mode = _appearance(path), _mode(path)
        try:
            found = _read(path, mode, work)
        except sqlite3.Error as error:
            if mode == _AT_REST and _appearance(path) != before:
                continue
            raise database_error(path, error) from error
        except OSError as error:
            raise StudyError.about(path, "must be readable", got=error.strerror) from error
        if mode != _AT_REST or _appearance(path) == before:
            return found
    raise StudyError.about(path, f"must rest long enough to be read, and changed {_ATTEMPTS} times")


def in_transaction(connection: Connection, work: Callable[[Connection], Value]) -> Value:
    """What ``work`` reads, as it stood at one moment, whoever writes meanwhile."""
    if connection.in_transaction:
        return work(connection)
    connection.execute("begin")
    try:
        return work(connection)
    finally:
        connection.rollback()


def _read(path: Path, mode: str, work: Callable[[Connection], Value]) -> Value:
    address = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
        connection.execute("pragma query_only = on")
        check_version(path, connection)
        return in_transaction(connection, work)


def _mode(path: Path) -> str:
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return "mode=rw"
    return "mode=ro" if log_of(path).exists() else _AT_REST


def _appearance(path: Path) -> tuple[object, ...]:
    """What changes when somebody writes to a database, found without opening it."""
    return tuple(_stamp(file) for file in (path, log_of(path)))


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
