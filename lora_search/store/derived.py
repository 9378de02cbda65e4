"""The files of a study's folder that are made from its database alone, and can be made again whenever one is lost.

``experiment.toml``, ``environment.json``, ``trials.csv``, ``cells.csv``, ``baselines.csv`` and ``verdict.json`` are for
people and other programs; nothing here reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_search.spec import experiment_to_toml
from lora_search.store.files import (
    BASELINES_FILE,
    CELLS_FILE,
    ENVIRONMENT_FILE,
    EXPERIMENT_FILE,
    TRIALS_FILE,
    VERDICT_FILE,
    json_text,
)
from lora_search.store.reader import StudyTables
from lora_search.store.spreadsheets import csv_text


def derived_files(tables: StudyTables) -> dict[str, str]:
    """The text of every derived file by name; none of a verdict before there is one."""
    return {**header_files(tables), **table_files(tables), **verdict_file(tables.verdict())}


def header_files(tables: StudyTables) -> dict[str, str]:
    """What was asked, and where it was computed."""
    return {EXPERIMENT_FILE: experiment_to_toml(tables.experiment), ENVIRONMENT_FILE: json_text(tables.environment)}


def table_files(tables: StudyTables) -> dict[str, str]:
    """The two tables, and that of the baselines once there are any."""
    baselines = {} if tables.baselines.empty else {BASELINES_FILE: csv_text(tables.baselines)}
    return {TRIALS_FILE: csv_text(tables.trials), CELLS_FILE: csv_text(tables.cells), **baselines}


def verdict_file(verdict: Mapping[str, Any] | None) -> dict[str, str]:
    """The verdict, if there is one; a number that is not finite becomes null."""
    return {} if verdict is None else {VERDICT_FILE: json_text(verdict)}
