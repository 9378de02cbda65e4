"""``study.db`` as the standard library sees it: our tables, beside Optuna's in the same file.

SQLite keeps a write-ahead log, so a reader never waits for the writer nor the writer for a reader, and a killed writer
leaves whole transactions. Nothing here opens the file but SQLite: POSIX takes a process's locks on a file away as soon
as the process closes any descriptor of it, and another program that then believes itself alone deletes the log under a
run ("How To Corrupt An SQLite Database File", section 2.2). What is said once per study (experiment, environments,
facts) is JSON in ``lora_study``.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_search.errors import StudyError
from lora_search.spec import Experiment
from lora_search.store.files import STUDY_FILE, json_text
from lora_search.store.records import SCORES

VERSION = 1
BUSY_SECONDS = 60.0
_SCORE_COLUMNS = ", ".join(f"{score} real" for score in SCORES)
_TABLES = f"""
create table lora_study (key text primary key, value text not null) without rowid;
create table lora_facts (key text primary key, value text not null) without rowid;
create table lora_trials (
    trial integer primary key, adapter text not null, nuisance text not null,
    adapter_parameters integer not null, head_parameters integer not null,
    origin text not null, state text not null, failure text
);
create table lora_cells (
    trial integer not null references lora_trials, repeat integer not null, fold integer not null,
    state text not null, {_SCORE_COLUMNS}, train_loss real, examples integer not null, train_examples integer not null,
    steps integer not null, tokens integer not null, seconds real not null, wall_seconds real not null,
    pack integer not null, pack_cells integer not null, failure text, finished_at text not null,
    primary key (trial, repeat, fold)
) without rowid;
pragma user_version = {VERSION};
"""


@dataclass(frozen=True)
class Header:
    """What a study says about itself: whose it is, and the environment of its first run and of each different one."""

    experiment: Experiment
    environments: tuple[dict[str, Any], ...]

    def environment(self) -> dict[str, Any]:
        """The environment of the first run; later different ones are a list under ``resumed_in``."""
        first, *later = self.environments
        return {**first, "resumed_in": later} if later else first


def create_tables(path: Path, header: Header) -> None:
    """Make ``path`` a database with our tables and this header, empty otherwise."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TABLES)
        write_header(connection, header)


def write_header(connection: sqlite3.Connection, header: Header) -> None:
    """Replace the header, in one transaction."""
    rows = [("experiment", header.experiment.model_dump_json()), ("environments", json_text(header.environments))]
    with connection:
        connection.executemany("insert or replace into lora_study values (?, ?)", rows)


def connect_writing(folder: Path) -> sqlite3.Connection:
    """A connection for the one run that holds the folder's lock."""
    connection = sqlite3.connect(folder / STUDY_FILE, timeout=BUSY_SECONDS)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma foreign_keys = on")
    return connection


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, with damage reported as a ``StudyError``, whatever of it is found inside.

    Raises:
        StudyError: no study there, or not one of ours, or damaged.
    """
    path = folder / STUDY_FILE
    try:
        address = f"{path.absolute().as_uri()}?{_reading_mode(path)}"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
            connection.execute("pragma query_only = on")
            _check_version(path, connection)
            yield connection
    except sqlite3.DatabaseError as error:
        raise StudyError(f"{path}: must be a study's database, got a damaged or foreign file: {error}") from error
    except OSError as error:
        raise StudyError(f"{path}: must be readable, got: {error.strerror}") from error


def _reading_mode(path: Path) -> str:
    """How to open without leaving anything behind, even in a folder that may not be written to.

    Where writing is allowed SQLite may lay its log beside the database, and takes it away again when the last one
    closes; what comes through the connection is refused all the same. Elsewhere a database without a log beside it is
    read as if nothing could change it, for which SQLite needs to lay nothing.
    """
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return "mode=rw"
    return "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"


def read_header(folder: Path, connection: sqlite3.Connection) -> Header:
    """The experiment and environments of the study.

    Raises:
        StudyError: they are not what this version can read.
    """
    values = dict(connection.execute("select key, value from lora_study").fetchall())
    try:
        experiment = Experiment.model_validate_json(values["experiment"])
        return Header(experiment, tuple(json.loads(values["environments"])))
    except (KeyError, ValueError) as error:
        raise StudyError(f"{folder / STUDY_FILE}: must hold an experiment of this version of lora-search") from error


def read_facts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Everything measured once for the study, by name."""
    rows: Mapping[str, str] = dict(connection.execute("select key, value from lora_facts order by key").fetchall())
    return {key: json.loads(value) for key, value in rows.items()}


def check_integrity(connection: sqlite3.Connection) -> None:
    """Look through every page of the file.

    Raises:
        sqlite3.DatabaseError: what SQLite found.
    """
    (first,) = connection.execute("pragma quick_check(1)").fetchone()
    if first != "ok":
        raise sqlite3.DatabaseError(" ".join(str(first).split()))


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if version > VERSION:
        raise StudyError(f"{path}: was written by a newer lora-search, of format {version}; this one reads {VERSION}")
    if version < 1:
        raise sqlite3.DatabaseError("no tables of lora-search")
