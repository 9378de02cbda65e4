"""A study in PostgreSQL: connecting, and reading.

Each study has a schema of its own (``DatabaseAddress.schema``) with the tables that ``study.db`` has, Optuna's among
them, and ``lora_files``: the predictions, which beside SQLite are files, under the names they have there. So a study is
in its database whole, whoever runs it and wherever.

psycopg (libpq) connects, and finds passwords (see ``store.address``).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lora_search.spec.names import is_study_name
from lora_search.store.address import DatabaseAddress, authentication
from lora_search.store.connection import Cursor
from lora_search.store.database import TABLES, VERSION, check_version
from lora_search.store.server_faults import driver, no_study, server_errors_as_study_errors

if TYPE_CHECKING:
    import psycopg

Value = TypeVar("Value")

_TYPES = {" integer": " bigint", " real": " double precision", " text": ' text collate "C"', " without rowid": ""}
"""What a type of SQLite's is called here, and sorted by the order of SQLite's texts."""
_OURS = re.compile(r"lora_search_[A-Za-z0-9._-]+")
PREFIX = "lora-search: "
_FILES = 'create table lora_files (name text collate "C" primary key, content bytea not null)'
_SETTINGS = {
    # what is read between "begin" and "rollback" is of one moment, as in SQLite
    "default_transaction_isolation": "repeatable read",
    # the server notices within a minute that a machine is gone, and with it its lock
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # a pack may train for an hour in which nothing is said
    "idle_session_timeout": "0",
}
_NOTHING: Mapping[str, str] = {}
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""The same of this side, in seconds, where the address says nothing else."""


class Connection:
    """psycopg's connection as the store's own (see ``store.connection``).

    Args:
        raw: of psycopg, that commits by itself where no transaction was begun.
        recorded: called after each transaction of a ``with`` block.
    """

    def __init__(self, raw: psycopg.Connection[Any], recorded: Callable[[], None] = lambda: None) -> None:
        self.raw = raw
        self._recorded = recorded

    @property
    def in_transaction(self) -> bool:
        """Whether one was begun and not ended."""
        return int(self.raw.info.transaction_status) != 0

    def execute(self, query: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """One statement, or several without parameters."""
        statement = query.replace("?", "%s") if parameters else query
        found: Cursor = self.raw.execute(statement.encode(), _plain(parameters) if parameters else None)
        return found

    def executemany(self, query: str, rows: Sequence[Sequence[Any]], /) -> None:
        """One statement for each of several rows."""
        with self.raw.cursor() as cursor:
            cursor.executemany(query.replace("?", "%s").encode(), [_plain(row) for row in rows])

    def rollback(self) -> None:
        """End the transaction under way without a trace."""
        self.raw.rollback()

    def close(self) -> None:
        """Let go of the server; a second call does nothing."""
        self.raw.close()

    def __enter__(self) -> Self:
        self.execute("begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is not None:
            if not self.raw.closed:
                self.raw.rollback()
            return
        # a number that grows with every transaction: onlookers ask for it instead of for everything
        self.execute(
            "insert into lora_study values ('revision', '1') on conflict (key) "
            "do update set value = (lora_study.value::bigint + 1)::text"
        )
        self.raw.commit()
        self._recorded()


def connect(address: DatabaseAddress, schema: str | None = None, *, autocommit: bool = True) -> psycopg.Connection[Any]:
    """A connection to a database, whose names are those of one schema.

    Args:
        address: of the study.
        schema: another than the study's.
        autocommit: whether a statement outside of a transaction is one by itself.

    Raises:
        MachineError: psycopg is not installed.
        psycopg.Error: there is no connection to be had.
    """
    psycopg_itself = driver()
    said = psycopg_itself.conninfo.conninfo_to_dict(address.storage)
    settings = {**_CONNECTING, **_authenticating(psycopg_itself), **said, "application_name": own_name()}
    raw: psycopg.Connection[Any] = psycopg_itself.connect(**settings, autocommit=autocommit, prepare_threshold=None)
    try:
        look_in(Connection(raw), schema or address.schema, _SETTINGS if autocommit else {})
        raw.commit()
    except BaseException:
        raw.close()
        raise
    return raw


def _authenticating(psycopg_itself: Any) -> dict[str, str]:
    """What a server may ask for; libpq knows of that since version 16."""
    return {"require_auth": authentication()} if psycopg_itself.pq.version() >= 160_000 else {}


def look_in(connection: Connection, schema: str, settings: Mapping[str, str] = _NOTHING) -> None:
    """Let names be those of one schema from now on; and settings of the session be as given."""
    values = {"search_path": f'"{schema}"', **settings}
    rows = ", ".join(["(?, ?)"] * len(values))
    # those alone that this version of the server knows
    wanted = f"(values {rows}) as wanted (name, value)"
    query = f"select set_config(name, value, false) from {wanted} join pg_settings using (name)"
    connection.execute(query, [part for pair in values.items() for part in pair])


def own_name() -> str:
    """What this process calls itself to a server, which cuts longer names."""
    return f"{PREFIX}process {os.getpid()} on {os.uname().nodename}"[:63]


def read_remote(address: DatabaseAddress, work: Callable[[Connection], Value]) -> Value:
    """What ``work`` finds in a study's tables, all of it as it stood at one moment.

    Raises:
        StudyError: no study there, or not one of ours, or no server.
        MachineError: psycopg is not installed.
    """
    with server_errors_as_study_errors(address), closing(Connection(connect(address))) as connection:
        connection.execute("begin read only")
        if not study_exists(connection, address):
            raise no_study(address)
        check_version(address, connection)
        return work(connection)


def study_exists(connection: Connection, address: DatabaseAddress) -> bool:
    """Whether the database has the study."""
    return connection.execute("select 1 from pg_namespace where nspname = ?", (address.schema,)).fetchone() is not None


def studies_in(storage: str) -> list[str]:
    """The names of all studies that a database lets this user read.

    Raises:
        StudyError: there is no server that tells.
        MachineError: psycopg is not installed.
    """
    nowhere = DatabaseAddress(storage, "")
    with server_errors_as_study_errors(nowhere), closing(Connection(connect(nowhere))) as connection:
        query = (
            "select nspname from pg_class join pg_namespace on relnamespace = pg_namespace.oid "
            "where relname = 'lora_study' and nspname like 'lora~_search~_%' escape '~' "
            "and has_schema_privilege(pg_namespace.oid, 'usage') and has_table_privilege(pg_class.oid, 'select')"
        )
        # whoever may make schemas there may call them anything
        schemas = [schema for (schema,) in connection.execute(query).fetchall() if _OURS.fullmatch(schema)]
        of_experiment = "select value::json ->> 'name' from \"{}\".lora_study where key = 'experiment'"
        rows = [(schema, connection.execute(of_experiment.format(schema)).fetchone()) for schema in schemas]
        return sorted(row[0] for schema, row in rows if row is not None and _is_kept_in(storage, row[0], schema))


def _is_kept_in(storage: str, name: Any, schema: str) -> bool:
    """Whether a study can have this name, which becomes that of a folder, and is in this schema then."""
    return is_study_name(name) and DatabaseAddress(storage, name).schema == schema


def revisions(storage: str, studies: Iterable[DatabaseAddress]) -> dict[DatabaseAddress, str]:
    """How many times each of some studies of a database was written to; nothing of those that are not there.

    Raises:
        StudyError: there is no server that tells.
        MachineError: psycopg is not installed.
    """
    nowhere, found = DatabaseAddress(storage, ""), {}
    with server_errors_as_study_errors(nowhere), closing(Connection(connect(nowhere))) as connection:
        for address in studies:
            if study_exists(connection, address):
                query = f"select value from \"{address.schema}\".lora_study where key = 'revision'"
                row = connection.execute(query).fetchone()
                found[address] = "0" if row is None else str(row[0])
    return found


def create_remote_tables(connection: Connection) -> None:
    """Make our tables, empty, in the schema the connection names things of."""
    script = TABLES
    for ours, theirs in _TYPES.items():
        script = script.replace(ours, theirs)
    connection.execute(f"{script}; {_FILES}; insert into lora_study values ('format', '{VERSION}')")


def read_files(address: DatabaseAddress, names: Sequence[str]) -> dict[str, bytes]:
    """The files of a study that its database has, of those named.

    Raises:
        StudyError: as of ``read_remote``.
    """
    query = "select name, content from lora_files where name = any(?)"
    return read_remote(address, lambda connection: dict(connection.execute(query, (list(names),)).fetchall()))


def _plain(row: Sequence[Any]) -> list[Any]:
    """As SQLite takes values: a number that is none is null. A null character, which no text has here, is shown."""
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in row]
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
