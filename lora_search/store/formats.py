"""Bringing a study of an older format to this one: when a run goes on with it, or when it is mended."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lora_search.store.database import VERSION, bring_up_to_date, format_of, write_verdict
from lora_search.store.files import json_text
from lora_search.store.predictions import recorded_checksum
from lora_search.store.reader import tables_of


def upgrade(folder: Path, connection: sqlite3.Connection) -> bool:
    """Bring the tables of a study up to date: checksums of its predictions as they are, its verdict from its file.

    Returns:
        whether there was anything to do.
    """
    if format_of(connection) == VERSION:
        return False
    verdict = tables_of(folder, connection).verdict()
    bring_up_to_date(connection, lambda key: recorded_checksum(folder, key))
    if verdict is not None:
        write_verdict(connection, json_text(verdict))
    return True
