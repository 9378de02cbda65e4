"""A copy of a database beside it, whole or not there at all: what is named as a copy can be gone back to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from lora_search.store.database import check_integrity
from lora_search.store.files import temporary_name


def copy_database(connection: sqlite3.Connection, path: Path, *, sound: bool = True) -> Path:
    """Copy a database, log included, to a file of this name, or where there is one, of this name and a number.

    The copy is written beside its place, brought to the disk and renamed; one that fails leaves nothing.

    Args:
        connection: to the database.
        path: where the first copy is.
        sound: whether one of a damaged database is none.

    Returns:
        the copy.

    Raises:
        sqlite3.Error: it cannot be read or written, or is damaged and should not be.
        OSError: it cannot be brought to the disk.
    """
    place = next(name for name in _names(path) if not name.exists())
    temporary = temporary_name(place)
    try:
        _remove(temporary)
        with closing(sqlite3.connect(temporary)) as copy:
            connection.backup(copy)
            if sound:
                check_integrity(copy)
        _to_disk(temporary)
        temporary.replace(place)
        _to_disk(place.parent)
    except BaseException:
        _remove(temporary)
        raise
    return place


def copies_of(path: Path) -> list[Path]:
    """The copies that are there."""
    others = path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}")
    return [copy for copy in (path, *sorted(others)) if copy.is_file()]


def _names(path: Path) -> Iterator[Path]:
    """``study-rescued.db``, ``study-rescued-2.db``, and so on."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            temporary.with_name(f"{temporary.name}{ending}").unlink()
