"""How a study comes into being, and on what terms it goes on. Called by the ledger, under the folder's lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from sqlalchemy import URL

from lora_search.errors import Mistake, StudyError
from lora_search.spec.paths import kind_of, path_errors_as
from lora_search.store.database import BUSY_SECONDS, Header, check_integrity, create_tables, read_header
from lora_search.store.differences import differences
from lora_search.store.files import STUDY_FILE, temporary_name
from lora_search.store.reading import read_from


def check_place(folder: Path) -> None:
    """Refuse a folder that is someone else's. Hidden files are nobody's: our lock, a killed run's beginnings.

    Raises:
        StudyError: it holds files and no study, is a file, or cannot be looked up.
    """
    kind = kind_of(folder, error=StudyError)
    if kind == "file":
        raise StudyError.about(folder, "must be a folder", got="a file")
    if kind == "folder" and kind_of(folder / STUDY_FILE, error=StudyError) is None:
        with path_errors_as(folder, error=StudyError):
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise StudyError.about(folder, "must be empty or hold a study", got=f"{shown} and no {STUDY_FILE}")


def continued(folder: Path, header: Header) -> Header:
    """The header under which a study goes on: the new experiment, and the environment too if it is a different one.

    Raises:
        StudyError: the study is damaged, or another experiment's.
    """
    recorded = read_from(folder, lambda connection: _checked_header(folder, connection))
    if found := differences(recorded.experiment, header.experiment):
        advice = Mistake("is another experiment's study", str(folder), hint="give this one another name")
        raise StudyError([*(replace(difference, source=str(folder)) for difference in found), advice])
    new = () if header.environments[0] == recorded.environments[-1] else header.environments
    return Header(header.experiment, (*recorded.environments, *new))


def _checked_header(folder: Path, connection: sqlite3.Connection) -> Header:
    check_integrity(connection)
    return read_header(folder, connection)


def create(folder: Path, header: Header) -> None:
    """Build ``study.db`` with all its tables, ours and Optuna's, beside its place, and then put it there."""
    temporary = temporary_name(folder / STUDY_FILE)
    for ending in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
    create_tables(temporary, header)
    storage = optuna_storage(temporary)
    try:
        with quiet_optuna():
            optuna.create_study(study_name=header.experiment.name, storage=storage, directions=["maximize", "minimize"])
    finally:
        dispose(storage)
    temporary.replace(folder / STUDY_FILE)


def optuna_storage(path: Path) -> optuna.storages.RDBStorage:
    """Optuna's tables in this file, made if need be.

    Raises:
        StudyError: an incompatible version of Optuna made them.
    """
    url = URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
    except RuntimeError as error:
        raise StudyError.about(path, f"must be of a version of Optuna that the installed one reads: {error}") from error


def dispose(storage: optuna.storages.RDBStorage) -> None:
    """Close every connection of this thread to the file."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna announces studies and trials on stderr; a study here announces itself. Its setting is put back after."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
