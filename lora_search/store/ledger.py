"""The writing door of the store: one run, one ledger, every result on the disk as soon as it exists.

``study.db`` is the truth; every other file of the folder but the predictions can be written again from it. It comes
into being whole (built under another name, then renamed), its transactions are whole, and a cell's predictions are in
place before its row is. So after a kill at any moment the study is as it was before or after the write under way.

The ledger knows nothing of what a trial means or of which cells are due: it keeps what it is told.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import optuna
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.spec import AdapterSpec, Experiment, Nuisance, experiment_to_toml
from lora_search.store.database import Header, connect_writing, write_header
from lora_search.store.files import (
    CELLS_FILE,
    ENVIRONMENT_FILE,
    EXPERIMENT_FILE,
    STUDY_FILE,
    TRIALS_FILE,
    VERDICT_FILE,
    json_text,
    write_atomically,
)
from lora_search.store.lock import FolderLock
from lora_search.store.opening import check_place, continued, create, dispose, optuna_storage
from lora_search.store.predictions import examples_path, write_cell_predictions, write_examples
from lora_search.store.reader import StudyTables, tables_of
from lora_search.store.records import SCORES, CellKey, CellResult, TrialRecord, TrialState
from lora_search.store.spreadsheets import without_formulas


class Ledger:
    """The records of one study, open for writing. Use ``open``; leave with ``close`` or a ``with`` block."""

    def __init__(self, folder: Path, experiment: Experiment, lock: FolderLock) -> None:
        self.folder = folder
        self.experiment = experiment
        self._lock = lock
        self._storage = optuna_storage(folder / STUDY_FILE)
        self._database = connect_writing(folder)

    @classmethod
    def open(cls, folder: str | Path, experiment: Experiment, environment: Mapping[str, Any]) -> Self:
        """Create a study, or go on with one.

        Args:
            folder: the study's own; made if need be.
            experiment: what is asked. A study goes on under it if no more differs than ``MAY_CHANGE`` allows.
            environment: versions, hardware, seeds, fold hashes, as JSON values. The first run's is kept, and any later
                one that differs from the last is added to it.

        Raises:
            StudyError: another run is writing there; the folder holds another experiment's study, a damaged one, or
                other files and no study. Nothing in it has been touched.
        """
        folder, header = Path(folder), Header(experiment, (json.loads(json_text(environment)),))
        check_place(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock.acquire(folder)
        except OSError as error:
            raise StudyError(f"{folder}: must be a folder that can be written to, got: {error.strerror}") from error
        try:
            if (folder / STUDY_FILE).exists():
                header = continued(folder, header)
            else:
                check_place(folder)
                create(folder, header)
            ledger = cls(folder, experiment, lock)
            ledger._write_header(header)
        except BaseException:
            lock.release()
            raise
        return ledger

    def close(self) -> None:
        """Let go of the folder; what was recorded is already on the disk. A second call does nothing."""
        dispose(self._storage)
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def optuna_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The Optuna study of this folder: named like the experiment, score to maximize, parameters to minimize."""
        return optuna.load_study(study_name=self.experiment.name, storage=self._storage, sampler=sampler)

    def add_trial(self, record: TrialRecord) -> None:
        """Record a trial.

        Raises:
            ValueError: it is recorded already.
        """
        row = (
            int(record.trial),
            record.adapter.model_dump_json(),
            record.nuisance.model_dump_json(),
            int(record.adapter_parameters),
            int(record.head_parameters),
            record.origin,
            record.state,
            record.failure,
        )
        try:
            with self._database:
                self._database.execute("insert into lora_trials values (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"trial must be new, got {record.trial}, which is recorded") from error

    def set_trial_state(self, trial: int, state: TrialState, failure: str | None = None) -> None:
        """Change the state of a recorded trial, and say why if it failed.

        Raises:
            ValueError: no such trial.
        """
        with self._database:
            changed = self._database.execute(
                "update lora_trials set state = ?, failure = ? where trial = ?", (state, failure, int(trial))
            )
        if changed.rowcount == 0:
            raise ValueError(f"trial must be a recorded one, got {trial}")

    def trials(self) -> list[TrialRecord]:
        """Every recorded trial, by number."""
        rows = self._database.execute(
            "select trial, adapter, nuisance, adapter_parameters, head_parameters, origin, state, failure "
            "from lora_trials order by trial"
        )
        return [
            TrialRecord(
                trial, AdapterSpec.model_validate_json(adapter), Nuisance.model_validate_json(nuisance), *numbers
            )
            for trial, adapter, nuisance, *numbers in rows
        ]

    def add_cell(self, result: CellResult) -> None:
        """Record a finished cell: its predictions first, then the row that says they are there.

        Raises:
            ValueError: it is recorded already, or its trial is not.
        """
        key = (int(result.key.trial), int(result.key.repeat), int(result.key.fold))
        if not self._database.execute("select 1 from lora_trials where trial = ?", key[:1]).fetchone():
            raise ValueError(f"trial must be a recorded one, got {result.key}")
        known = "select 1 from lora_cells where trial = ? and repeat = ? and fold = ?"
        if self._database.execute(known, key).fetchone():
            raise ValueError(f"cell must be new, got {result.key}, which is recorded")
        if result.state == "complete":
            write_cell_predictions(self.folder, result)
        row = (*key, *_cell_values(result))
        with self._database:
            self._database.execute(f"insert into lora_cells values ({', '.join('?' * len(row))})", row)

    def cell_keys(self) -> set[CellKey]:
        """The cells that are recorded, complete or failed."""
        return {CellKey(*row) for row in self._database.execute("select trial, repeat, fold from lora_cells")}

    def next_pack(self) -> int:
        """A pack number no recorded cell has."""
        (number,) = self._database.execute("select coalesce(max(pack) + 1, 0) from lora_cells").fetchone()
        return int(number)

    def fact(self, key: str) -> Any:
        """Something measured once for the study, or ``None``."""
        row = self._database.execute("select value from lora_facts where key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_fact(self, key: str, value: Any) -> None:
        """Keep a JSON value for this and every later run of the study."""
        with self._database:
            self._database.execute("insert or replace into lora_facts values (?, ?)", (key, json_text(value)))

    def tables(self) -> StudyTables:
        """The study as it stands, as ``read_study`` would give it."""
        return tables_of(self.folder, self._database)

    def write_tables(self) -> None:
        """Bring ``trials.csv`` and ``cells.csv`` up to date."""
        tables = self.tables()
        for name, frame in ((TRIALS_FILE, tables.trials), (CELLS_FILE, tables.cells)):
            text = without_formulas(frame).to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%SZ")
            write_atomically(self.folder / name, text)

    def write_examples(self, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        """Keep what predictions are judged by: true label and group of every example of the encoded data, both (n,)."""
        if not examples_path(self.folder).exists():
            write_examples(self.folder, labels, groups)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Write ``verdict.json``; a number that is not finite becomes null."""
        write_atomically(self.folder / VERDICT_FILE, json_text(verdict))

    def _write_header(self, header: Header) -> None:
        """Bring what the study says about itself up to date, in the database and then in the files made from it."""
        write_header(self._database, header)
        write_atomically(self.folder / EXPERIMENT_FILE, experiment_to_toml(header.experiment))
        write_atomically(self.folder / ENVIRONMENT_FILE, json_text(header.environment()))


def _cell_values(result: CellResult) -> tuple[Any, ...]:
    """The columns after the key, as Python numbers: SQLite would store numpy's as raw bytes."""
    return (
        result.state,
        *(float(result.scores[score]) if score in result.scores else None for score in SCORES),
        float(result.train_loss),
        len(result.examples),
        int(result.train_examples),
        int(result.steps),
        int(result.tokens),
        float(result.seconds),
        float(result.wall_seconds),
        int(result.pack),
        int(result.pack_cells),
        result.failure,
        datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
