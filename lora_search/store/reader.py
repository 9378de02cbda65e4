"""A study folder -> frames. The light door of the store: pandas, numpy and SQLite or psycopg, no Optuna, no torch.

Reading never writes, never waits for a run that is writing, and sees only what that run has finished recording. What is
read together belongs together: tables, facts and verdict are of one moment, and predictions of the cells in the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lora_search.errors import StudyError
from lora_search.spec import ADAPTER_FIELDS, Experiment, closest, facts
from lora_search.spec.paths import expanded, kind_of
from lora_search.store.address import address_in
from lora_search.store.connection import Connection
from lora_search.store.database import (
    baseline_key,
    baselines_of,
    cells_of,
    format_of,
    read_facts,
    read_header,
    read_verdict_text,
)
from lora_search.store.files import STORAGE_FILE, STUDY_FILE, VERDICT_FILE
from lora_search.store.frames import baselines_frame, cells_frame, trials_frame
from lora_search.store.predictions import predictions_frame, read_examples
from lora_search.store.reading import in_transaction, read_from
from lora_search.store.records import BaselineKey, CellKey
from lora_search.store.verdicts import named_trials, read_verdict


@dataclass(frozen=True, eq=False)
class StudyTables:
    """One study as it stood when it was read.

    Attributes:
        folder: where it is.
        experiment: what was asked.
        environment: versions, hardware, seeds and fold hashes of the first run; of later, different runs under
            ``resumed_in``.
        trials: one row per trial: trial, state, origin, rank, alpha, targets, layers, scaling, use_dora, bias,
            rank_pattern, learning_rate, dropout, adapter_parameters, head_parameters, cells (complete ones),
            score_mean, score_std, seconds, wall_seconds, failure.
        cells: one row per recorded cell: trial, repeat, fold, state, score (the verdict's metric), a column for every
            score there is (accuracy, macro_f1, matthews_correlation, log_loss), train_loss, examples, train_examples,
            steps, tokens, seconds, wall_seconds, pack, pack_cells, failure, finished_at.
        facts: what was found out once and is kept on resume (see ``spec.facts``).
        recorded_verdict: the last verdict of the run, on trials of this table; None before the first.
        checksums: of the prediction files of complete cells, None where none was kept.
        baselines: one row per recorded training of what is no adapter: baseline, learning_rate (NaN for none), repeat,
            fold, state, score, a column for every score, train_loss, examples, train_examples, steps, tokens, seconds,
            trainable_parameters, step_bytes, failure, finished_at.
        baseline_checksums: of their prediction files.
    """

    folder: Path
    experiment: Experiment = field(repr=False)
    environment: dict[str, Any] = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    cells: pd.DataFrame = field(repr=False)
    facts: dict[str, Any] = field(repr=False)
    recorded_verdict: dict[str, Any] | None = field(repr=False, default=None)
    checksums: Mapping[CellKey, str | None] = field(repr=False, default_factory=dict)
    baselines: pd.DataFrame = field(repr=False, default_factory=lambda: baselines_frame((), "accuracy"))
    baseline_checksums: Mapping[BaselineKey, str | None] = field(repr=False, default_factory=dict)

    @property
    def trials_wanted(self) -> int:
        """Trials the study makes (see ``SearchSpec.total``); those it has, where its limit of trainings ended it or all
        adapters it compares are through or out of the race."""
        ends = list(zip(self.trials["state"], self.trials["failure"], strict=True))
        if all(state != "running" for state, _ in ends):
            compared = facts.COMPARED.of(self.facts)
            through = compared is not None and len(self.trials[list(ADAPTER_FIELDS)].drop_duplicates()) >= compared
            if through or any(facts.is_unfinished(*end) for end in ends):
                return len(self.trials)
        return self.experiment.search.total_among(facts.ADAPTERS.of(self.facts))

    def predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions of every complete cell of these tables; see ``read_predictions``."""
        self._check_folder()
        complete = self.cells.loc[self.cells["state"] == "complete", ["trial", "repeat", "fold"]]
        keys = [CellKey(*map(int, row)) for row in complete.itertuples(index=False)]
        return predictions_frame(self.folder, {key: self.checksums.get(key) for key in keys})

    def baseline_predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions of every complete training of a baseline: baseline, learning_rate (NaN for none),
        repeat, fold, example, p0, p1, ..."""
        self._check_folder()
        return predictions_frame(self.folder, self.baseline_checksums, BaselineKey)

    def examples(self) -> pd.DataFrame:
        """True ``label`` and ``group`` of every example of the encoded data; empty in a study that never trained.

        Raises:
            StudyError: the file is damaged, or the folder gone.
        """
        self._check_folder()
        return read_examples(self.folder)

    def verdict(self) -> dict[str, Any] | None:
        """What ``verdict.json`` said when these tables were read, or ``None`` before the first verdict."""
        return self.recorded_verdict

    def _check_folder(self) -> None:
        """A study with results is no empty one because its folder is gone, or looked for from another directory.

        Raises:
            StudyError: it is not there.
        """
        if self.checksums and kind_of(self.folder, error=StudyError) is None:
            _check_is_study(self.folder)


def read_study(folder: str | Path) -> StudyTables:
    """Everything a study has recorded but its predictions.

    Raises:
        StudyError: no study there, or a damaged one.
    """
    folder = expanded(folder)
    _check_is_study(folder)
    return read_from(folder, lambda connection: tables_of(folder, connection))


def tables_of(folder: Path, connection: Connection) -> StudyTables:
    """As ``read_study``, over an open connection."""
    return in_transaction(connection, lambda connection: _tables(folder, connection))


def _tables(folder: Path, connection: Connection) -> StudyTables:
    place = folder / STUDY_FILE if isinstance(connection, sqlite3.Connection) else folder
    header, rows = read_header(place, connection), cells_of(connection)
    cells = cells_frame(rows, header.experiment.verdict.metric)
    trials = trials_frame(connection, cells)
    baselines = baselines_of(connection)
    return StudyTables(
        folder,
        header.experiment,
        header.environment(),
        trials,
        cells,
        read_facts(connection),
        _verdict(folder, connection, trials),
        {
            CellKey(row["trial"], row["repeat"], row["fold"]): row["predictions"]
            for row in rows
            if row["state"] == "complete"
        },
        baselines_frame(baselines, header.experiment.verdict.metric),
        {baseline_key(row): row["predictions"] for row in baselines if row["state"] == "complete"},
    )


def _verdict(folder: Path, connection: Connection, trials: pd.DataFrame) -> dict[str, Any] | None:
    text = read_verdict_text(connection)
    if text is not None:
        return dict(json.loads(text))
    if format_of(connection) > 1:
        return None
    # a study of format 1 has it in its file alone, which may be damaged, or of a later moment than these tables
    try:
        verdict = read_verdict(folder / VERDICT_FILE)
    except StudyError:
        return None
    return None if verdict is None or not named_trials(verdict) <= set(trials["trial"]) else verdict


def read_predictions(folder: str | Path) -> pd.DataFrame:
    """The out-of-fold predictions of every complete cell.

    Returns:
        One row per cell and example, sorted by trial, repeat and fold: trial, repeat, fold, example (position in the
        encoded data), and the probability of each label as p0, p1, ... (float32). No p columns before the first cell.

    Raises:
        StudyError: no study there, or a prediction file missing or damaged.
    """
    return read_study(folder).predictions()


def list_studies(results: str | Path) -> list[Path]:
    """The study folders directly inside a results folder, by name; none if there is no such folder."""
    results = Path(results)
    if not results.is_dir():
        return []
    return sorted({path.parent for name in (STUDY_FILE, STORAGE_FILE) for path in results.glob(f"*/{name}")})


def _check_is_study(folder: Path) -> None:
    if kind_of(folder / STUDY_FILE, error=StudyError) != "file" and address_in(folder) is None:
        names = [study.name for study in list_studies(folder.parent)]
        nearest = closest(folder.name, names)
        meant = None if nearest is None else str(folder.parent / nearest)
        there = {"folder": f"a folder without {STUDY_FILE}", "file": "a file", None: "no such folder"}
        found = there[kind_of(folder, error=StudyError)]
        raise StudyError.about(folder, "must be the folder of a study", got=found, meant=meant)
