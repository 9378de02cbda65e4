"""Noticing that a study's database was taken away under the run that writes it.

An open SQLite connection goes on writing to a log that no longer has a name, and to a file in a deleted folder, without
an error: nothing of it would be there after the run. Whoever deletes them may not know better (a file manager, a clean-
up, a program that believed the database was not in use), so the run looks before it records.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_search.store.files import log_of

Loss = Literal["log", "database", "replaced", "folder"]


@dataclass(frozen=True)
class Watch:
    """The files of an open database, known by what the file system calls them.

    Attributes:
        path: ``study.db``.
        database: its (device, inode) while it was open.
        log: of its log; None where SQLite keeps none.
    """

    path: Path
    database: tuple[int, int] | None
    log: tuple[int, int] | None

    @classmethod
    def of(cls, path: Path) -> Watch:
        """Remember the files as they are. A connection must be open that has written, so that there is a log, and no
        other program may delete it by right."""
        return cls(path, _identity(path), _identity(log_of(path)))

    def loss(self) -> Loss | None:
        """What is no longer there: the log, or the database with it, or another file is in its place, or all of it."""
        database = _identity(self.path)
        if database is None:
            return "database" if self.path.parent.is_dir() else "folder"
        if database != self.database:
            return "replaced"
        return "log" if _identity(log_of(self.path)) != self.log else None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
