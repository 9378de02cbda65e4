"""What the store asks of a connection, so that one set of statements serves SQLite and PostgreSQL.

``sqlite3.Connection`` is one as it is; ``postgresql.Connection`` makes one of psycopg's. Statements say ``?`` for a
value and hold no other question mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self


class Cursor(Protocol):
    """What a statement found, or how many rows it changed."""

    @property
    def description(self) -> Any: ...

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A database open for reading or writing. In a ``with`` block what is written is one transaction: all of it is
    there when the block ends, or nothing if it fails."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, query: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, query: str, rows: Sequence[Sequence[Any]], /) -> Any: ...

    def rollback(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Any: ...
