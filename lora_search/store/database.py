"""Our tables of a study, beside Optuna's in the same database, and every statement that is made of them.

The same statements serve ``study.db`` and PostgreSQL (see ``store.postgresql``); what is SQLite's alone says so. SQLite
keeps a write-ahead log, so a reader never waits for the writer nor the writer for a reader, and a killed writer
leaves whole transactions. What is said once per study (experiment, environments, verdict) is JSON in ``lora_study``,
what is found out once in ``lora_facts``.

Format 2 keeps the scores of a cell as JSON, whatever they are, and the checksum of its predictions. Studies of format 1
had a column for each of four scores; they are read as they are, and brought to format 2 when a run goes on with one.
Trainings of baselines have a table of their own, which is added where a study has none.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_search.errors import StudyError
from lora_search.spec import Experiment
from lora_search.store.connection import Connection
from lora_search.store.files import STUDY_FILE, json_text
from lora_search.store.records import BaselineKey, CellKey

VERSION = 2
BUSY_SECONDS = 60.0
_NO_RATE = 0.0
"""In place of the learning rate of what has none: a key of SQLite holds no null."""
_CELLS = """
create table lora_cells (
    trial integer not null references lora_trials, repeat integer not null, fold integer not null,
    state text not null, scores text not null, train_loss real, examples integer not null,
    train_examples integer not null, steps integer not null, tokens integer not null, seconds real not null,
    wall_seconds real not null, pack integer not null, pack_cells integer not null, failure text,
    finished_at text not null, predictions text,
    primary key (trial, repeat, fold)
) without rowid
"""
_BASELINES = """
create table if not exists lora_baselines (
    baseline text not null, learning_rate real not null, repeat integer not null, fold integer not null,
    state text not null, scores text not null, train_loss real, examples integer not null,
    train_examples integer not null, steps integer not null, tokens integer not null, seconds real not null,
    trainable_parameters integer not null, step_bytes integer, failure text, finished_at text not null,
    predictions text,
    primary key (baseline, learning_rate, repeat, fold)
) without rowid
"""
TABLES = f"""
create table lora_study (key text primary key, value text not null) without rowid;
create table lora_facts (key text primary key, value text not null) without rowid;
create table lora_trials (
    trial integer primary key, adapter text not null, nuisance text not null,
    adapter_parameters integer not null, head_parameters integer not null,
    origin text not null, state text not null, failure text
);
{_CELLS};
{_BASELINES};
"""
REPLACING = "on conflict (key) do update set value = excluded.value"
"""Ends an insertion of a value by its key, which may be there already."""
KEEPING = "on conflict do nothing"
"""Ends an insertion of what is known to be new: one that is made again, since nobody knows whether it was committed
when the connection was lost, changes nothing."""
_SCORES_OF_FORMAT_1 = ("accuracy", "macro_f1", "matthews_correlation", "log_loss")


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
        connection.executescript(f"{TABLES}\npragma user_version = {VERSION};")
        write_header(connection, header)


def connect_writing(folder: Path) -> sqlite3.Connection:
    """A connection for the one run that holds the folder's lock."""
    connection = sqlite3.connect(folder / STUDY_FILE, timeout=BUSY_SECONDS)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma foreign_keys = on")
    connection.execute(_BASELINES)  # studies of before there were any have no such table
    return connection


def check_version(place: object, connection: Connection) -> None:
    """That these are tables of ours, and of a format that is read here.

    Args:
        place: of the database, for the message.
        connection: to it.

    Raises:
        StudyError: a newer one.
        sqlite3.DatabaseError: none of ours.
    """
    version = format_of(connection)
    if version > VERSION:
        raise StudyError.about(
            place, f"was written by a newer lora-search, of format {version}", hint=f"this one reads {VERSION}"
        )
    if version < 1:
        raise sqlite3.DatabaseError("no tables of lora-search")


def format_of(connection: Connection) -> int:
    """The number of the format the tables are in; 0 for none of ours. SQLite has a place for it beside the tables."""
    if isinstance(connection, sqlite3.Connection):
        (version,) = connection.execute("pragma user_version").fetchone()
    else:
        (version,) = connection.execute(
            "select coalesce(max(value), '0') from lora_study where key = 'format'"
        ).fetchone()
    return int(version)


def check_integrity(connection: Connection) -> None:
    """Look through every page of SQLite's file; a server looks after its own.

    Raises:
        sqlite3.DatabaseError: what SQLite found.
    """
    if not isinstance(connection, sqlite3.Connection):
        return
    (first,) = connection.execute("pragma quick_check(1)").fetchone()
    if first != "ok":
        raise sqlite3.DatabaseError(" ".join(str(first).split()))


def bring_up_to_date(connection: sqlite3.Connection, checksum_of: Callable[[CellKey], str | None]) -> None:
    """Bring tables of an older format to this one, in one transaction.

    Args:
        checksum_of: of the predictions of a cell that has some; None where they are not there.
    """
    if format_of(connection) == VERSION:
        return
    cells = cells_of(connection)
    connection.execute("begin immediate")
    with connection:
        connection.execute("drop table lora_cells")
        connection.execute(_CELLS)
        for row in cells:
            complete = row["state"] == "complete"
            checksum = checksum_of(CellKey(row["trial"], row["repeat"], row["fold"])) if complete else None
            insert_cell(connection, {**row, "predictions": checksum})
        connection.execute(f"pragma user_version = {VERSION}")


# -- header, facts and verdict -----------------------------------------------------------------------------------


def write_header(connection: Connection, header: Header) -> None:
    """Replace the header, in one transaction."""
    rows = [("experiment", header.experiment.model_dump_json()), ("environments", json_text(header.environments))]
    with connection:
        connection.executemany(f"insert into lora_study values (?, ?) {REPLACING}", rows)


def read_header(place: object, connection: Connection) -> Header:
    """The experiment and environments of the study.

    Args:
        place: of the database, for the message.
        connection: to it.

    Raises:
        StudyError: they are not what this version can read.
    """
    values = dict(connection.execute("select key, value from lora_study").fetchall())
    try:
        experiment = Experiment.model_validate_json(values["experiment"])
        return Header(experiment, tuple(json.loads(values["environments"])))
    except (KeyError, ValueError) as error:
        raise StudyError.about(place, "must hold an experiment of this version of lora-search") from error


def write_facts(connection: Connection, facts: Mapping[str, Any]) -> None:
    """Keep facts, as JSON values by name, inside a transaction of the caller's."""
    rows = [(name, json_text(value)) for name, value in facts.items()]
    connection.executemany(f"insert into lora_facts values (?, ?) {REPLACING}", rows)


def read_facts(connection: Connection) -> dict[str, Any]:
    """Everything found out once for the study, by name (see ``spec.facts``)."""
    rows: Mapping[str, str] = dict(connection.execute("select key, value from lora_facts order by key").fetchall())
    return {key: json.loads(value) for key, value in rows.items()}


def write_verdict(connection: Connection, verdict: str) -> None:
    """Keep the text of ``verdict.json``: of what is recorded in this very database."""
    with connection:
        connection.execute(f"insert into lora_study values ('verdict', ?) {REPLACING}", (verdict,))


def read_verdict_text(connection: Connection) -> str | None:
    """The text of ``verdict.json``; None before the first verdict, and in studies of format 1."""
    row = connection.execute("select value from lora_study where key = 'verdict'").fetchone()
    return None if row is None else str(row[0])


# -- cells -------------------------------------------------------------------------------------------------------


def insert_cell(connection: Connection, row: Mapping[str, Any]) -> None:
    """Add a cell: the columns of ``lora_cells`` by name, ``scores`` as a mapping."""
    _insert(connection, "lora_cells", row)


def insert_baseline(connection: Connection, row: Mapping[str, Any]) -> None:
    """Add a training of a baseline: the columns of ``lora_baselines`` by name, ``scores`` as a mapping."""
    _insert(connection, "lora_baselines", {**row, "learning_rate": row["learning_rate"] or _NO_RATE})


def delete_baseline(connection: Connection, key: BaselineKey) -> None:
    """Forget a training of a baseline."""
    row = (key.baseline, key.learning_rate or _NO_RATE, key.repeat, key.fold)
    where = "baseline = ? and learning_rate = ? and repeat = ? and fold = ?"
    connection.execute(f"delete from lora_baselines where {where}", row)


def baselines_of(connection: Connection) -> list[dict[str, Any]]:
    """The recorded trainings of baselines, as ``cells_of``; none in studies of before there were any."""
    found = "select 1 from sqlite_master where name = 'lora_baselines'"
    if isinstance(connection, sqlite3.Connection) and not connection.execute(found).fetchone():
        return []
    rows = rows_of(connection, "select * from lora_baselines order by baseline, learning_rate, repeat, fold")
    return [{**_in_this_format(row), "learning_rate": row["learning_rate"] or None} for row in rows]


def baseline_key(row: Mapping[str, Any]) -> BaselineKey:
    """Which training a row of ``baselines_of`` is of."""
    return BaselineKey(row["baseline"], row["learning_rate"], row["repeat"], row["fold"])


def _insert(connection: Connection, table: str, row: Mapping[str, Any]) -> None:
    values = {**row, "scores": json_text(row["scores"]).strip()}
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"insert into {table} ({names}) values ({marks}) {KEEPING}", [*values.values()])


def cells_of(connection: Connection) -> list[dict[str, Any]]:
    """The recorded cells by trial, repeat and fold: columns by name, ``scores`` as a mapping, in whichever format."""
    rows = rows_of(connection, "select * from lora_cells order by trial, repeat, fold")
    return [_in_this_format(row) for row in rows]


def rows_of(connection: Connection, query: str) -> list[dict[str, Any]]:
    """What a query finds, every row by the names of its columns."""
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _in_this_format(row: dict[str, Any]) -> dict[str, Any]:
    if "scores" in row:
        kept = json.loads(row["scores"])
    else:
        kept = {name: row.pop(name) for name in _SCORES_OF_FORMAT_1}
        kept = kept if row["state"] == "complete" else {}
    scores = {name: math.nan if score is None else float(score) for name, score in kept.items()}
    return {"predictions": None, **row, "scores": scores}
