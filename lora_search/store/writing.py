"""``study.db`` open for the one run that writes it: our connection and Optuna's, and what to do when it is taken away.

Both must look at the same log. SQLite shares the index of a log among the connections of one process, so after a loss
all of them are closed before the first is opened anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import optuna

from lora_search.errors import StudyError
from lora_search.store.connection import Connection
from lora_search.store.copying import copy_database
from lora_search.store.database import connect_writing
from lora_search.store.files import LOCK_FILE, RESCUED_FILE, STUDY_FILE, index_of, log_of
from lora_search.store.formats import upgrade
from lora_search.store.lock import FolderLock
from lora_search.store.opening import dispose, optuna_storage
from lora_search.store.predictions import keep_file
from lora_search.store.watching import Loss, Watch

Value = TypeVar("Value")


class WritableDatabase:
    """Connections to a study's database, all or none of them open.

    Args:
        lock: of the study's folder, which this run holds.

    Attributes:
        notes: what befell the database, as sentences for the user.

    Raises:
        StudyError: an incompatible version of Optuna made it.
    """

    def __init__(self, lock: FolderLock) -> None:
        self.lock = lock
        self.folder = lock.folder
        self.path = self.folder / STUDY_FILE
        self.notes: list[str] = []
        self._connect()
        try:
            upgrade(self.folder, self._connection)
        except BaseException:
            self._disconnect()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """Ours, to a database that is still there.

        Raises:
            StudyError: it is not, and could not be put back.
        """
        self._look()
        return self._connection

    @property
    def storage(self) -> optuna.storages.RDBStorage:
        """Optuna's, of the same database.

        Raises:
            StudyError: as of ``connection``.
        """
        self._look()
        return self._storage

    def attempt(self, work: Callable[[Connection], Value]) -> Value:
        """Do something with our tables, in a database that is still there.

        Raises:
            StudyError: as of ``connection``.
        """
        return work(self.connection)

    def patiently(self, work: Callable[[], Value]) -> Value:
        """Do something: a file does not go away for a while."""
        return work()

    def keep(self, path: Path, content: bytes) -> None:
        """Keep a file of the study, unless it is there."""
        keep_file(path, content)

    def settle(self) -> None:
        """Bring what the log holds into the file itself, as far as nobody reads it: the file is then good alone."""
        self.connection.execute("pragma wal_checkpoint(passive)").fetchall()

    def close(self) -> None:
        """Close all connections; a second call does nothing."""
        if not self._open:
            return
        with suppress(
            StudyError, sqlite3.Error, OSError
        ):  # to be told when something is recorded, not when all is over
            self._look()
        self._disconnect()

    def _connect(self) -> None:
        self._storage = optuna_storage(self.path)
        self._connection = connect_writing(self.folder)
        self._open = True
        self._connection.execute("begin immediate")  # now there is a log, and a lock that keeps it there
        self._connection.commit()
        self._watch = Watch.of(self.path)

    def _disconnect(self) -> None:
        dispose(self._storage)
        self._connection.close()
        self._open = False

    # -- losses --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self.lock.keep():
            name = self.folder / LOCK_FILE
            self.notes.append(f"{name} was deleted under the run, and is taken again; no other run came in meanwhile")
        loss = self._watch.loss()
        if loss is not None:
            self._recover(loss)

    def _recover(self, loss: Loss) -> None:
        """Put back what was lost, from what the open connection still holds: all that was ever recorded."""
        if loss == "folder":
            raise StudyError.about(self.folder, "must stay where it is while a run writes to it, and is gone")
        # of nothing else, so that a damaged one is better than none
        rescued = copy_database(self._connection, self.path.with_name(RESCUED_FILE), sound=False)
        if loss == "replaced":
            raise StudyError.about(
                self.path,
                "must stay in its place while a run writes to it, and another file was put there",
                hint=f"what the run recorded is in {rescued}",
            )
        self._disconnect()
        if loss == "database":
            for leftover in (log_of(self.path), index_of(self.path)):
                leftover.unlink(missing_ok=True)
            rescued.replace(self.path)
            self._connect()
        else:
            self._connect()
            self._put_back(rescued)
        what = self.path if loss == "database" else log_of(self.path)
        self.notes.append(f"{what} was deleted under the run; nothing of what was recorded is lost")

    def _put_back(self, rescued: Path) -> None:
        if not index_of(self.path).exists():
            raise StudyError.about(
                self.path,
                "must not be open elsewhere in this process when its log is deleted",
                hint=f"what the run recorded is in {rescued}",
            )
        with closing(sqlite3.connect(rescued)) as copy:
            copy.backup(self._connection)
        rescued.unlink()
