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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import optuna
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.spec import AdapterSpec, Experiment, Nuisance
from lora_search.spec.facts import Fact
from lora_search.store.database import (
    Header,
    baseline_key,
    baselines_of,
    insert_baseline,
    insert_cell,
    read_facts,
    write_header,
    write_verdict,
)
from lora_search.store.derived import header_files, table_files, verdict_file
from lora_search.store.faults import refusal
from lora_search.store.files import STUDY_FILE, json_text, write_atomically
from lora_search.store.lock import FolderLock
from lora_search.store.opening import check_place, continued, create
from lora_search.store.predictions import write_examples, write_predictions
from lora_search.store.reader import StudyTables, tables_of
from lora_search.store.records import BaselineKey, BaselineResult, CellKey, CellResult, TrialRecord, TrialState
from lora_search.store.writing import WritableDatabase

Value = TypeVar("Value")


class Ledger:
    """The records of one study, open for writing. Use ``open``; leave with ``close`` or a ``with`` block."""

    def __init__(self, folder: Path, experiment: Experiment, lock: FolderLock) -> None:
        self.folder = folder
        self.experiment = experiment
        self._lock = lock
        self._open = WritableDatabase(lock)

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
            refused = refusal(folder, error) or error.strerror
            raise StudyError.about(folder, "must be a folder that can be written to", got=refused) from error
        try:
            if (folder / STUDY_FILE).exists():
                header = continued(folder, header)
            else:
                check_place(folder)
                create(folder, header)
            ledger = cls(folder, experiment, lock)
        except BaseException:
            lock.release()
            raise
        try:
            ledger._write_header(header)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Let go of the folder; what was recorded is already on the disk. A second call does nothing."""
        try:
            self._open.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What befell the study's files while this run wrote to them, as sentences."""
        return tuple(self._open.notes)

    def optuna_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The Optuna study of this folder: named like the experiment, score to maximize, parameters to minimize."""
        return optuna.load_study(study_name=self.experiment.name, storage=self._open.storage, sampler=sampler)

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
            with self._open.connection as database:
                database.execute("insert into lora_trials values (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"trial must be new, got {record.trial}, which is recorded") from error

    def set_trial_state(self, trial: int, state: TrialState, failure: str | None = None) -> None:
        """Change the state of a recorded trial, and say why if it failed.

        Raises:
            ValueError: no such trial.
        """
        with self._open.connection as database:
            changed = database.execute(
                "update lora_trials set state = ?, failure = ? where trial = ?", (state, failure, int(trial))
            )
        if changed.rowcount == 0:
            raise ValueError(f"trial must be a recorded one, got {trial}")

    def trials(self) -> list[TrialRecord]:
        """Every recorded trial, by number."""
        rows = self._open.connection.execute(
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
        database = self._open.connection
        if not database.execute("select 1 from lora_trials where trial = ?", key[:1]).fetchone():
            raise ValueError(f"trial must be a recorded one, got {result.key}")
        known = "select 1 from lora_cells where trial = ? and repeat = ? and fold = ?"
        if database.execute(known, key).fetchone():
            raise ValueError(f"cell must be new, got {result.key}, which is recorded")
        checksum = write_predictions(self.folder, result.key, result) if result.state == "complete" else None
        with database:
            insert_cell(database, _cell_row(result, checksum))

    def cell_keys(self) -> set[CellKey]:
        """The cells that are recorded, complete or failed."""
        return {CellKey(*row) for row in self._open.connection.execute("select trial, repeat, fold from lora_cells")}

    def add_baseline(self, trained: BaselineResult) -> None:
        """Record a training of what is no adapter: its predictions first, then the row that says they are there.

        Raises:
            ValueError: it is recorded already.
        """
        if trained.key in self.baseline_keys():
            raise ValueError(f"training must be new, got {trained.key}, which is recorded")
        result = trained.result
        checksum = write_predictions(self.folder, trained.key, result) if result.state == "complete" else None
        of_cells_alone = ("trial", "repeat", "fold", "wall_seconds", "pack", "pack_cells")
        shared = {name: value for name, value in _cell_row(result, checksum).items() if name not in of_cells_alone}
        more = {"trainable_parameters": trained.trainable_parameters, "step_bytes": trained.step_bytes}
        with self._open.connection as database:
            insert_baseline(database, asdict(trained.key) | shared | more)

    def baseline_keys(self) -> set[BaselineKey]:
        """The trainings of baselines that are recorded, complete or failed."""
        return {baseline_key(row) for row in baselines_of(self._open.connection)}

    def next_pack(self) -> int:
        """A pack number no recorded cell has."""
        (number,) = self._open.connection.execute("select coalesce(max(pack) + 1, 0) from lora_cells").fetchone()
        return int(number)

    def facts(self) -> dict[str, Any]:
        """Everything found out once for the study, as JSON values by name (see ``spec.facts``)."""
        return read_facts(self._open.connection)

    def fact(self, fact: Fact[Value]) -> Value | None:
        """Something found out once for the study, or ``None``."""
        return fact.of(self.facts())

    def set_fact(self, fact: Fact[Value], value: Value) -> None:
        """Keep a value for this and every later run of the study."""
        self.set_facts({fact.name: fact.to_json(value)})

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep several, as JSON values by name, all or none of them."""
        rows = [(name, json_text(value)) for name, value in facts.items()]
        with self._open.connection as database:
            database.executemany("insert or replace into lora_facts values (?, ?)", rows)

    def tables(self) -> StudyTables:
        """The study as it stands, as ``read_study`` would give it."""
        return tables_of(self.folder, self._open.connection)

    def write_tables(self) -> None:
        """Bring ``trials.csv``, ``cells.csv`` and ``baselines.csv`` up to date."""
        self._write(table_files(self.tables()))
        self._open.settle()

    def write_examples(
        self, labels: NDArray[np.int64], groups: NDArray[np.int64], answers: NDArray[Any] | None = None
    ) -> None:
        """Keep what predictions are judged by: label and group of every example of the encoded data, both (n,), and
        what is right of it, (n, ...), where a label says not all.

        Written again where the file is missing or another one."""
        write_examples(self.folder, labels, groups, answers)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Record the verdict on what is recorded, and write ``verdict.json``; what is not finite becomes null."""
        write_verdict(self._open.connection, json_text(verdict))
        self._write(verdict_file(verdict))

    def _write_header(self, header: Header) -> None:
        """Bring what the study says about itself up to date, in the database and then in the files made from it."""
        write_header(self._open.connection, header)
        self._write(header_files(self.tables()))

    def _write(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            write_atomically(self.folder / name, text)


def _cell_row(result: CellResult, checksum: str | None) -> dict[str, Any]:
    """The columns of a cell, as Python numbers: SQLite would store numpy's as raw bytes."""
    return {
        "trial": int(result.key.trial),
        "repeat": int(result.key.repeat),
        "fold": int(result.key.fold),
        "state": result.state,
        "scores": {name: float(score) for name, score in result.scores.items()},
        "train_loss": float(result.train_loss),
        "examples": len(result.examples),
        "train_examples": int(result.train_examples),
        "steps": int(result.steps),
        "tokens": int(result.tokens),
        "seconds": float(result.seconds),
        "wall_seconds": float(result.wall_seconds),
        "pack": int(result.pack),
        "pack_cells": int(result.pack_cells),
        "failure": result.failure,
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "predictions": checksum,
    }
