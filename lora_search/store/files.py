"""The names in a study folder, and writing one of its files so that a reader sees the old one or the new one, whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

STUDY_FILE = "study.db"
STORAGE_FILE = "storage.json"
EXPERIMENT_FILE = "experiment.toml"
ENVIRONMENT_FILE = "environment.json"
VERDICT_FILE = "verdict.json"
TRIALS_FILE = "trials.csv"
CELLS_FILE = "cells.csv"
BASELINES_FILE = "baselines.csv"
PREDICTIONS_FOLDER = "predictions"
LOCK_FILE = ".lock"
LIVE_FILE = "live.json"
RESCUED_FILE = "study-rescued.db"
BACKUP_FILE = "study-before-doctor.db"


def results_of(folder: Path, name: str) -> Path | None:
    """The folder of results under which a run of a study goes on in this folder; None where none does, since a study's
    folder is called like the study, and this one was renamed or is a copy.

    Args:
        folder: the study's, or a link to it.
        name: the study's.
    """
    places = (folder, folder.absolute(), folder.resolve())
    return next((place.parent for place in places if place.name == name), None)


def log_of(database: Path) -> Path:
    """SQLite's write-ahead log of a database: what was committed and is not in the file itself yet."""
    return database.with_name(f"{database.name}-wal")


def index_of(database: Path) -> Path:
    """The index of that log, which the programs that have the database open share."""
    return database.with_name(f"{database.name}-shm")


def temporary_name(path: Path) -> Path:
    """Where ``path`` is written before it is renamed; one name, so that what a crash leaves is overwritten later."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, bring it to the disk, and rename it; what cannot be written leaves nothing."""
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def json_text(value: Any) -> str:
    """JSON that any reader takes: numpy numbers are plain numbers, a path is text, and what is not finite is null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
