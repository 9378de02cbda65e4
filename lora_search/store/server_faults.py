"""What a PostgreSQL server and the way to it refuse, told in one line; and psycopg, which knows.

psycopg (libpq) is imported where a study is kept in PostgreSQL, and nowhere else: it is an extra
(``pip install 'lora-search[postgresql]'``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lora_search.errors import MachineError, StudyError, behind, retold
from lora_search.store.address import DatabaseAddress

if TYPE_CHECKING:
    import psycopg


@contextmanager
def server_errors_as_study_errors(address: DatabaseAddress) -> Iterator[None]:
    """Inside the block, what the server refuses is told in one line.

    Raises:
        StudyError: as the block was refused something.
    """
    with retold(partial(server_error, address)):
        yield


def server_error(address: DatabaseAddress, error: BaseException) -> StudyError | None:
    """What a server said, as an error of the study; None where that is not where an error comes from, or it is a
    mistake of this program."""
    cause = _server_cause(error)
    if cause is None:
        return None
    errors = driver().errors
    text = _one_line(cause)
    if isinstance(cause, errors.UndefinedTable | errors.InvalidSchemaName):
        return no_study(address)
    if isinstance(cause, errors.InsufficientPrivilege):
        return StudyError.about(address.storage, f"must let this user keep a study ({text})")
    if is_lost(cause):
        return StudyError.about(address.storage, "must be a database that answers", got=text)
    if isinstance(cause, errors.OperationalError | errors.ReadOnlySqlTransaction):
        return StudyError.about(address.storage, "must take what a run records", got=text)
    return None


def no_study(address: DatabaseAddress) -> StudyError:
    """That a database has no study of this name."""
    return StudyError.about(address.storage, f"must hold a study {address.study}", got="none of that name")


def is_lost(error: BaseException) -> bool:
    """Whether an error is that of a connection that broke, or could not be had."""
    cause = _server_cause(error)
    if cause is None or not isinstance(cause, driver().OperationalError):
        return False
    # a code of class 08 is of connecting, 57P is of a server that stops or starts; libpq itself gives none
    return cause.sqlstate is None or cause.sqlstate.startswith(("08", "57P"))


def _server_cause(error: BaseException | None) -> psycopg.Error | None:
    """What psycopg raised, behind what SQLAlchemy and Optuna made of it."""
    loaded = sys.modules.get("psycopg")
    return None if loaded is None else behind(error, loaded.Error)


def _one_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    # of several addresses of one name libpq tells at length
    return text.removeprefix("connection failed: ")[:300] or type(error).__name__


def driver() -> Any:
    """psycopg.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise MachineError.about(
            "--storage", "needs psycopg, which is not installed", hint="(pip install 'lora-search[postgresql]')"
        ) from error
    return psycopg
