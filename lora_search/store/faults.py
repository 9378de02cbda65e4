"""What can go wrong with a file or a database that is nobody's mistake in this program, each told in one line.

A disk that is full, a folder that may not be written to, a file that is no database: the user can do something about
these, so they are told as errors of the study. Everything else stays what it is, and is shown as a bug.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lora_search.errors import StudyError, behind, retold
from lora_search.store.address import address_in
from lora_search.store.files import STUDY_FILE
from lora_search.store.server_faults import server_error

GOING_ON = "every training that was finished is recorded, and the same command goes on"

_OF_WRITING = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE})
_OS_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)$")
"""How the libraries written in Rust (tokenizers, safetensors) end what they say of a file."""
_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_ERROR", "SQLITE_SCHEMA"})
_DATABASE_RULES = {
    "SQLITE_BUSY": "must not be kept locked by another program, and was for a minute",
    "SQLITE_CANTOPEN": "must be in a folder where SQLite may keep its log beside it",
    "SQLITE_FULL": "must have room on its disk, got a full one",
    "SQLITE_IOERR": "must be on a disk that can be read and written, got an error of the disk",
    "SQLITE_PERM": "must be a file that may be written to",
    "SQLITE_READONLY": "must be a file that may be written to",
}


def database_error(path: Path, error: sqlite3.Error) -> StudyError:
    """What SQLite said of ``path``, as an error of the study."""
    name = _primary(error)
    if name in _DATABASE_RULES:
        return StudyError.about(path, f"{_DATABASE_RULES[name]} ({' '.join(str(error).split())})")
    return StudyError.about(path, "must be a study's database", got=f"a damaged or foreign file: {error}")


@contextmanager
def storage_errors_as_study_errors(folder: Path) -> Iterator[None]:
    """Inside the block, what the disk and the database refuse a run is told in one line, with how to go on.

    Args:
        folder: the study's.

    Raises:
        StudyError: as the block was refused something.
    """
    with retold(partial(_storage_error, folder)):
        yield


def _storage_error(folder: Path, error: Exception) -> StudyError | None:
    if (refused := refusal(folder, error)) is not None:
        hint = GOING_ON if folder.is_dir() else ""
        return StudyError.about(folder, "must be a folder that can be written to", got=refused, hint=hint)
    address = address_in(folder)
    if address is not None:
        refused_by_database = server_error(address, error)
    else:
        cause = _database_cause(error)
        refused_by_database = None if cause is None else database_error(folder / STUDY_FILE, cause)
    if refused_by_database is not None:
        refused_by_database.change(lambda mistake: replace(mistake, hint=GOING_ON))
    return refused_by_database


def refusal(folder: Path, error: BaseException) -> str | None:
    """What the system refused a file of ``folder``, in its words: no space left on the device, and the like.

    An error that names no file is about this folder if it is of a kind that comes of writing: no other is written to.

    Returns:
        None where the error is of another kind, or about another place.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        path, root = Path(os.fsdecode(error.filename)).absolute(), folder.absolute()
        which = "" if path == root else f" ({path.name})"
        return f"{error.strerror}{which}" if path.is_relative_to(root) else None
    match = _OS_ERROR_NUMBER.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
    return os.strerror(number) if number is not None and number in _OF_WRITING else None


def _database_cause(error: BaseException | None) -> sqlite3.Error | None:
    """What SQLite said, behind what SQLAlchemy and Optuna made of it; None if that is not where an error comes from."""
    said = behind(error, sqlite3.Error)
    known = isinstance(said, sqlite3.DatabaseError) and _primary(said) in {*_DATABASE_RULES, *_DAMAGED}
    return said if known else None


def _primary(error: sqlite3.Error) -> str:
    """``SQLITE_IOERR`` of ``SQLITE_IOERR_WRITE``; empty where SQLite gave no code."""
    name = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])
