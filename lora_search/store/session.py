"""A study in PostgreSQL, open for the one run that writes it.

The connection that writes is the one that holds the study's lock (an advisory lock of its session), so whoever lost the
one has lost the other, and no run writes beside another. The server gives the lock up when the run's connection ends:
at once where its process dies, and within a minute where its machine vanishes, for both sides ask one another whether
they are still there (TCP keepalives). That is the lease of a run, and its heartbeat. Optuna's connections write nothing
before ours has been looked at.

A server that is stopped or restarted, or a network that fails, costs the run nothing but the wait: a connection is made
anew, with pauses that grow, the lock taken again, and what was being recorded recorded again. Whoever had the lock
meanwhile keeps it, and this run ends. A connection pooler between must keep sessions ("session pooling").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna

from lora_search.errors import LoraSearchError, StudyError, StudyInUseError
from lora_search.store.address import DatabaseAddress
from lora_search.store.database import Header, check_version, write_header
from lora_search.store.faults import GOING_ON
from lora_search.store.files import STORAGE_FILE
from lora_search.store.lock import PATIENCE as OF_THE_ENDED
from lora_search.store.lock import FolderLock, has_ended
from lora_search.store.opening import dispose, loaded_by_optuna, new_optuna_study
from lora_search.store.postgresql import (
    PREFIX,
    Connection,
    connect,
    create_remote_tables,
    look_in,
    own_name,
    study_exists,
)
from lora_search.store.predictions import keep_file
from lora_search.store.server_faults import is_lost, server_error

if TYPE_CHECKING:
    import psycopg

Value = TypeVar("Value")

PATIENCE = 300.0
"""Seconds that a server may take to come back."""
_FIRST_PAUSE = 0.2
_PAUSE_OF_LOCK = 0.05
_LONGEST_PAUSE = 10.0
_TOLD = 1.0


class Session:
    """The connection of a run, its lock, and Optuna's connections beside it.

    Args:
        lock: of the study's folder on this machine, which this run holds too: other files are written there.
        address: of the study.

    Attributes:
        notes: what befell the connection, as sentences for the user.

    Raises:
        StudyInUseError: another run writes to the study.
        StudyError: there is no server that lets one.
    """

    def __init__(self, lock: FolderLock, address: DatabaseAddress) -> None:
        self.address = address
        self.notes: list[str] = []
        self._lock = lock
        self._before: int | None = None
        self._storage: optuna.storages.RDBStorage | None = None
        self._raw = self._locked()

    # -- the store's side ----------------------------------------------------------------------------------------

    def attempt(self, work: Callable[[Connection], Value]) -> Value:
        """Do something with our tables, again where the connection was lost over it.

        Args:
            work: may be done again though its transaction was committed, so it must come to the same then.

        Raises:
            StudyInUseError: another run has come in meanwhile.
            StudyError: the server does not come back.
        """
        return self.patiently(lambda: work(Connection(self._living(), self._recorded)))

    @property
    def storage(self) -> optuna.storages.RDBStorage:
        """Optuna's, in the same schema, as long as this run holds the lock.

        Raises:
            StudyError: as of ``attempt``.
        """
        self.attempt(lambda connection: connection.execute("select 1"))
        if self._storage is None:
            self._storage = self._optuna_storage(self.address.schema)
        return self._storage

    def keep(self, path: Path, content: bytes) -> None:
        """Keep a file of the study, unless it is there: in the database, and a copy in the folder."""
        query = "insert into lora_files values (?, ?) on conflict (name) do update set content = excluded.content"
        known = "select 1 from lora_files where name = ? and content = ?"

        def work(connection: Connection) -> None:
            if not connection.execute(known, (path.name, content)).fetchone():
                connection.execute(query, (path.name, content))

        self.attempt(work)
        with suppress(OSError):  # a copy saves reading it from there
            keep_file(path, content)

    def settle(self) -> None:
        """The server does that."""

    def close(self) -> None:
        """Let go of everything, and the next run in; a second call does nothing."""
        if self._storage is not None:
            dispose(self._storage)
            self._storage = None
        self._raw.close()

    # -- coming into being ---------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the study does.

        Raises:
            StudyError: it does, and is of a newer version.
        """

        def work(connection: Connection) -> bool:
            found = study_exists(connection, self.address)
            if found:
                check_version(self.address, connection)
            return found

        return self.attempt(work)

    def create(self, header: Header) -> None:
        """Make all tables in a schema of another name, and then give it the study's."""
        new = self.address.new_schema
        connection = Connection(self._living())
        connection.execute(f'drop schema if exists "{new}" cascade; create schema "{new}"')
        look_in(connection, new)
        create_remote_tables(connection)
        write_header(connection, header)
        storage = self._optuna_storage(new)
        try:
            new_optuna_study(header.experiment, storage)
        finally:
            dispose(storage)
        connection.execute(f'alter schema "{new}" rename to "{self.address.schema}"')
        look_in(connection, self.address.schema)

    # -- connections ---------------------------------------------------------------------------------------------

    def patiently(self, work: Callable[[], Value]) -> Value:
        """Do something, again where a connection was lost over it, ours or Optuna's.

        Args:
            work: may be done again from any point on.

        Raises:
            StudyError: as of ``attempt``.
        """
        found, waited = patiently(self.address, work)
        if waited > _TOLD:
            self.notes.append(f"the database was away for {waited:.0f} s; nothing of what was recorded is lost")
        return found

    def _living(self) -> psycopg.Connection[Any]:
        if self._raw.closed:
            self._raw = self._locked()
        return self._raw

    def _locked(self) -> psycopg.Connection[Any]:
        """A connection that holds the study's lock."""
        raw = connect(self.address)
        try:
            self._lock_study(Connection(raw))
        except BaseException:
            raw.close()
            raise
        self._before = raw.info.backend_pid
        return raw

    def _lock_study(self, connection: Connection) -> None:
        key, until = _key_of(self.address), time.monotonic() + OF_THE_ENDED
        while not connection.execute("select pg_try_advisory_lock(?)", (key,)).fetchone()[0]:
            holder, name = _holder(connection, key)
            said = name.removeprefix(PREFIX)
            if (holder, name) == (self._before, own_name()):
                # our own of before, of which the server does not know yet that it was lost
                connection.execute("select pg_terminate_backend(?)", (holder,))
            # what a killed run forked has its connection too, and ends as soon as it notices
            elif holder is not None and not (has_ended(said) and time.monotonic() < until):
                who = f" ({said})" if said else ""
                raise StudyInUseError.about(self._lock.folder, f"another run is writing to {self.address}{who}")
            time.sleep(_PAUSE_OF_LOCK)

    def _optuna_storage(self, schema: str) -> optuna.storages.RDBStorage:
        """Optuna's tables in a schema, made if need be; over connections that are tried before they are used."""

        def creator() -> psycopg.Connection[Any]:
            return self.patiently(lambda: connect(self.address, schema, autocommit=False))

        return loaded_by_optuna(self.address, "postgresql+psycopg://", creator=creator, pool_pre_ping=True)

    def _recorded(self) -> None:
        """Whoever follows the folder on this machine sees by the file's time that something was recorded."""
        with suppress(OSError):
            os.utime(self._lock.folder / STORAGE_FILE)


def patiently(address: DatabaseAddress, work: Callable[[], Value]) -> tuple[Value, float]:
    """Do something with a database, again where a connection was lost over it.

    Args:
        address: of the study.
        work: may be done again from any point on.

    Returns:
        what came of it, and the seconds that the database was away.

    Raises:
        StudyError: the server does not come back.
    """
    began, pause, waited = time.monotonic(), _FIRST_PAUSE, 0.0
    while True:
        try:
            return work(), waited
        except LoraSearchError:
            raise
        except Exception as error:
            if not is_lost(error):
                raise
            if time.monotonic() - began > PATIENCE:
                raise _given_up(address, error) from error
        time.sleep(min(pause, _LONGEST_PAUSE))
        pause *= 2
        waited = time.monotonic() - began


def _given_up(address: DatabaseAddress, error: Exception) -> StudyError:
    told = server_error(address, error)
    said = "" if told is None else f" ({told.details[0].got})"
    rule = f"must answer within {PATIENCE:.0f} s, and did not{said}"
    return StudyError.about(address.storage, rule, hint=GOING_ON)


def holder_in(address: DatabaseAddress) -> str | None:
    """Whose run has a study, as ``process 12 on name``, empty where this user may not know it; None where nobody has.

    Raises:
        StudyError: the server does not come back.
    """

    def work() -> tuple[int | None, str]:
        with closing(Connection(connect(address))) as connection:
            return _holder(connection, _key_of(address))

    (holder, name), _ = patiently(address, work)
    return None if holder is None else name.removeprefix(PREFIX)


def _key_of(address: DatabaseAddress) -> int:
    """The number of the study's lock, of 64 bits; locks are the database's own."""
    return int.from_bytes(sha256(address.schema.encode()).digest()[:8], signed=True)


def _holder(connection: Connection, key: int) -> tuple[int | None, str]:
    """Which of the server's processes holds a lock, and what the one that it works for calls itself; None where it is
    free by now, and an empty name where this user may not know it."""
    query = (
        "select pid, coalesce(application_name, '') from pg_locks left join pg_stat_activity using (pid) "
        "where locktype = 'advisory' and granted and objsubid = 1 and classid::bigint = ? and objid::bigint = ? "
        "and pg_locks.database = (select oid from pg_database where datname = current_database())"
    )
    bits = key & (2**64 - 1)
    found = connection.execute(query, (bits >> 32, bits & (2**32 - 1))).fetchone()
    return (None, "") if found is None else (int(found[0]), str(found[1]))
