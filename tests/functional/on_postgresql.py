"""The functional tests once more, with studies in PostgreSQL: ``LORA_SEARCH_TESTS_ON=postgresql make test``.

A study that is told no place is then kept in a database and not in its folder: in one for each folder, for tests call
their studies alike. It is for runs in the tests' own process and in those forked for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lora_search.store import ledger, storages
from lora_search.store.address import address_in
from lora_search.study import runner

WANTED = os.environ.get("LORA_SEARCH_TESTS_ON") == "postgresql"
SERVER = "LORA_SEARCH_TESTS_SERVER"

in_its_folder = pytest.mark.skipif(WANTED, reason="about a study that its folder holds")


@contextmanager
def studies_in_databases() -> Iterator[None]:
    """Inside the block studies are kept by the server whose address is in the environment; without one, as ever."""
    server = os.environ.get(SERVER)
    if server is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for module in (ledger, runner):
            patch.setattr(module, "storage_of", _storage_in(server, storages.storage_of))
        yield


def _storage_in(server: str, storage_of: Callable[..., Any]) -> Callable[..., Any]:
    def found(folder: Path, study: str, storage: str | None = None) -> Any:
        if storage is None and address_in(folder) is None and not storages.FolderStorage(folder).exists():
            storage = f"{server}/{_database_of(server, folder)}"
        return storage_of(folder, study, storage)

    return found


def _database_of(server: str, folder: Path) -> str:
    """The database of a folder, made if need be."""
    import psycopg

    name = f"of_{sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            connection.execute(f"create database {name}")
    return name
