"""Where a study is kept, behind one protocol: in its folder by SQLite, or in a PostgreSQL database.

A folder is what commands are given either way (``store.address``). One suite of tests holds both to the same
(``tests/store/storage_contract.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import optuna

from lora_search.errors import StudyError
from lora_search.spec.paths import kind_of, path_errors_as
from lora_search.store.address import DatabaseAddress, address_in, checked_storage, write_address
from lora_search.store.connection import Connection as AnyConnection
from lora_search.store.database import Header, read_header
from lora_search.store.files import STUDY_FILE
from lora_search.store.lock import FolderLock, holder_of
from lora_search.store.opening import check_place, continued, create, recorded_header
from lora_search.store.postgresql import (
    Connection,
    connect,
    read_remote,
    studies_in,
    study_exists,
)
from lora_search.store.reading import read_file
from lora_search.store.server_faults import server_errors_as_study_errors
from lora_search.store.session import Session, holder_in
from lora_search.store.writing import WritableDatabase

Value = TypeVar("Value")


class OpenStorage(Protocol):
    """A study open for the one run that writes it.

    Attributes:
        notes: what befell it, as sentences for the user.
        storage: Optuna's side of it.
    """

    notes: list[str]

    @property
    def storage(self) -> optuna.storages.RDBStorage: ...

    def attempt(self, work: Callable[[AnyConnection], Value]) -> Value:
        """Do something with the tables; it may be done again, and must come to the same then."""

    def patiently(self, work: Callable[[], Value]) -> Value:
        """The same for what is done with Optuna's side."""

    def keep(self, path: Path, content: bytes) -> None:
        """Keep a file of the study, unless it is there."""

    def settle(self) -> None:
        """Called now and then, when much was recorded."""

    def close(self) -> None:
        """Let go of it; a second call does nothing."""


class Storage(Protocol):
    """A place for one study."""

    def exists(self) -> bool:
        """Whether the study is there."""

    def read(self, work: Callable[[AnyConnection], Value]) -> Value:
        """What ``work`` finds in the tables, as they stood at one moment."""

    def holder(self) -> str | None:
        """Who has the study open to write it, as ``process 12 on name``, or empty where that is not said; None for
        nobody."""

    def begin(self, lock: FolderLock, header: Header) -> tuple[OpenStorage, Header]:
        """Create the study, or open it to go on with it.

        Args:
            lock: of its folder, which the run holds.
            header: of the run.

        Returns:
            the study, and what it says of itself from now on.

        Raises:
            StudyInUseError: another run writes to it.
            StudyError: it is another experiment's, or damaged.
        """


@dataclass(frozen=True)
class FolderStorage:
    """``study.db`` in the study's folder, and files beside it."""

    folder: Path

    def exists(self) -> bool:
        return kind_of(self.folder / STUDY_FILE, error=StudyError) == "file"

    def read(self, work: Callable[[AnyConnection], Value]) -> Value:
        return read_file(self.folder, work)

    def holder(self) -> str | None:
        return holder_of(self.folder)

    def begin(self, lock: FolderLock, header: Header) -> tuple[OpenStorage, Header]:
        if (self.folder / STUDY_FILE).exists():
            header = continued(self.folder, recorded_header(self.folder), header)
        else:
            check_place(self.folder)
            create(self.folder, header)
        return WritableDatabase(lock), header


@dataclass(frozen=True)
class PostgresqlStorage:
    """A schema of a PostgreSQL database; the folder says which, and has copies.

    Args:
        folder: the study's.
        address: of the study.
    """

    folder: Path
    address: DatabaseAddress

    def exists(self) -> bool:
        with (
            server_errors_as_study_errors(self.address),
            closing(Connection(connect(self.address))) as connection,
        ):
            return study_exists(connection, self.address)

    def read(self, work: Callable[[AnyConnection], Value]) -> Value:
        return read_remote(self.address, work)

    def holder(self) -> str | None:
        with server_errors_as_study_errors(self.address):
            # on this machine, or anywhere
            return holder_of(self.folder) or holder_in(self.address)

    def begin(self, lock: FolderLock, header: Header) -> tuple[OpenStorage, Header]:
        with server_errors_as_study_errors(self.address):
            session = Session(lock, self.address)
            try:
                if session.exists():
                    recorded = session.attempt(lambda connection: read_header(self.address, connection))
                    header = continued(self.folder, recorded, header)
                else:
                    session.create(header)
                if address_in(self.folder) is None:
                    write_address(self.folder, self.address)
            except BaseException:
                session.close()
                raise
        return session, header


def attach_studies(results: Path, storage: str, names: Sequence[str] = ()) -> list[Path]:
    """Make folders for studies of a database, so that commands can be given them here too.

    Args:
        results: where study folders are.
        storage: the address of the database.
        names: of the studies; all there are, without.

    Returns:
        the folders, by name.

    Raises:
        StudyError: the database has no such study, or a folder is another study's or cannot be written to.
        MachineError: psycopg is not installed.
    """
    storage = checked_storage(storage)
    known = studies_in(storage)
    wanted = sorted(set(names)) or known
    if not known:
        raise StudyError.about(storage, "must hold a study", got="none")
    if missing := [name for name in wanted if name not in known]:
        raise StudyError.about("NAME", f"must be one of {', '.join(known)}", got=missing[0])
    for name in wanted:
        folder = results / name
        storage_of(folder, name, storage)
        check_place(folder)
        with path_errors_as(folder, error=StudyError):
            folder.mkdir(parents=True, exist_ok=True)
            if address_in(folder) is None:
                write_address(folder, DatabaseAddress(storage, name))
    return [results / name for name in wanted]


def storage_of(folder: Path, study: str, storage: str | None = None) -> Storage:
    """Where the study of a folder is, or is to be.

    Args:
        folder: the study's.
        study: its name.
        storage: the address of a PostgreSQL database, as the user gave it; None for where the study is already, and
            for the folder itself.

    Raises:
        StudyError: the address is none, or the study is elsewhere.
    """
    recorded = address_in(folder)
    if storage is None:
        return FolderStorage(folder) if recorded is None else PostgresqlStorage(folder, recorded)
    address = DatabaseAddress(checked_storage(storage), study)
    if recorded not in (None, address):
        raise StudyError.about(
            folder, f"is the folder of {recorded}", got=str(address), hint="give another folder with --results"
        )
    if recorded is None and FolderStorage(folder).exists():
        raise StudyError.about(
            folder, f"holds a study of its own, {STUDY_FILE}", hint="leave --storage out, or give another --results"
        )
    return PostgresqlStorage(folder, address)
