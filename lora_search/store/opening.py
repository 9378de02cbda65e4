"""How a study comes into being, and on what terms it goes on. Called by the ledger, under the folder's lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import URL

from lora_search.errors import Mistake, StudyError
from lora_search.spec import Experiment
from lora_search.spec.paths import kind_of, path_errors_as
from lora_search.store.connection import Connection
from lora_search.store.database import BUSY_SECONDS, Header, check_integrity, create_tables, read_header
from lora_search.store.differences import differences
from lora_search.store.files import STORAGE_FILE, STUDY_FILE, temporary_name
from lora_search.store.reading import read_file


def check_place(folder: Path) -> None:
    """Refuse a folder that is someone else's. Hidden files are nobody's: our lock, a killed run's beginnings.

    Raises:
        StudyError: it holds files and no study, is a file, or cannot be looked up.
    """
    kind = kind_of(folder, error=StudyError)
    if kind == "file":
        raise StudyError.about(folder, "must be a folder", got="a file")
    here = any(kind_of(folder / name, error=StudyError) for name in (STUDY_FILE, STORAGE_FILE))
    if kind == "folder" and not here:
        with path_errors_as(folder, error=StudyError):
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise StudyError.about(folder, "must be empty or hold a study", got=f"{shown} and no {STUDY_FILE}")


def continued(folder: Path, recorded: Header, header: Header) -> Header:
    """The header under which a study goes on: the new experiment, and the environment too if it is a different one.

    Raises:
        StudyError: the study is another experiment's.
    """
    if found := differences(recorded.experiment, header.experiment):
        advice = Mistake("is another experiment's study", str(folder), hint="give this one another name")
        raise StudyError([*(replace(difference, source=str(folder)) for difference in found), advice])
    new = () if header.environments[0] == recorded.environments[-1] else header.environments
    return Header(header.experiment, (*recorded.environments, *new))


def recorded_header(folder: Path) -> Header:
    """The header of a study on this machine, if its file is whole.

    Raises:
        StudyError: it is damaged.
    """

    def work(connection: Connection) -> Header:
        check_integrity(connection)
        return read_header(folder / STUDY_FILE, connection)

    return read_file(folder, work)


def create(folder: Path, header: Header) -> None:
    """Build ``study.db`` with all its tables, ours and Optuna's, beside its place, and then put it there."""
    temporary = temporary_name(folder / STUDY_FILE)
    for ending in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
    create_tables(temporary, header)
    storage = optuna_storage(temporary)
    try:
        new_optuna_study(header.experiment, storage)
    finally:
        dispose(storage)
    temporary.replace(folder / STUDY_FILE)


def optuna_storage(path: Path) -> optuna.storages.RDBStorage:
    """Optuna's tables in this file, made if need be.

    Raises:
        StudyError: an incompatible version of Optuna made them.
    """
    url = URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
    return loaded_by_optuna(path, url, connect_args={"timeout": BUSY_SECONDS})


def loaded_by_optuna(place: object, url: str, **engine: Any) -> optuna.storages.RDBStorage:
    """Optuna's tables behind a URL, made if need be.

    Args:
        place: of the database, for the message.
        url: as SQLAlchemy takes it.
        engine: what else SQLAlchemy is to know.

    Raises:
        StudyError: an incompatible version of Optuna made them.
    """
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine)
    except RuntimeError as error:
        rule = f"must be of a version of Optuna that the installed one reads: {error}"
        raise StudyError.about(place, rule) from error


def new_optuna_study(experiment: Experiment, storage: optuna.storages.RDBStorage) -> None:
    """Make the study of an experiment, named like it: score to maximize, parameters to minimize."""
    with quiet_optuna():
        optuna.create_study(study_name=experiment.name, storage=storage, directions=["maximize", "minimize"])


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
