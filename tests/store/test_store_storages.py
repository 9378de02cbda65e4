"""The places for a study, held to one contract: its folder, and PostgreSQL."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from storage_contract import Begin, StorageContract
from store_builders import ENVIRONMENT, experiment

from lora_search.store.ledger import Ledger


def opened(folder: Path, storage: str | None, asked: Any = None, environment: Any = ENVIRONMENT) -> Ledger:
    return Ledger.open(folder, asked or experiment(), environment, storage)


class TestFolder(StorageContract):
    @pytest.fixture
    def begin(self, folder: Path) -> Begin:
        return partial(opened, folder, None)


class TestPostgresql(StorageContract):
    @pytest.fixture
    def begin(self, folder: Path, postgresql: Any) -> Begin:
        return partial(opened, folder, postgresql.storage)
