"""The writing door of the store: one run, one ledger, every result in its place as soon as it exists.

The database is the truth, ``study.db`` or one in PostgreSQL (see ``store.storages``); every other file of the folder
but the predictions can be written again from it. It comes into being whole (built under another name, then renamed),
its transactions are whole, and a cell's predictions are in place before its row is. So after a kill at any moment the
study is as it was before or after the write under way.

The ledger knows nothing of what a trial means or of which cells are due: it keeps what it is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from lora_search.store.connection import Connection
from lora_search.store.database import (
    KEEPING,
    Header,
    baseline_key,
    baselines_of,
    insert_baseline,
    insert_cell,
    read_facts,
    write_facts,
    write_header,
    write_verdict,
)
from lora_search.store.derived import header_files, table_files, verdict_file
from lora_search.store.faults import refusal
from lora_search.store.files import json_text, write_atomically
from lora_search.store.lock import FolderLock
from lora_search.store.opening import check_place
from lora_search.store.predictions import (
    Key,
    checksum_of,
    examples_content,
    examples_path,
    predictions_content,
    predictions_path,
)
from lora_search.store.reader import StudyTables, tables_of
from lora_search.store.records import BaselineKey, BaselineResult, CellKey, CellResult, TrialRecord, TrialState
from lora_search.store.storages import OpenStorage, storage_of

Value = TypeVar("Value")


class Ledger:
    """The records of one study, open for writing. Use ``open``; leave with ``close`` or a ``with`` block."""

    def __init__(self, folder: Path, experiment: Experiment, lock: FolderLock, storage: OpenStorage) -> None:
        self.folder = folder
        self.experiment = experiment
        self._lock = lock
        self._open = storage

    @classmethod
    def open(
        cls,
        folder: str | Path,
        experiment: Experiment,
        environment: Mapping[str, Any],
        storage: str | None = None,
    ) -> Self:
        """Create a study, or go on with one.

        Args:
            folder: the study's own; made if need be.
            experiment: what is asked. A study goes on under it if no more differs than ``MAY_CHANGE`` allows.
            environment: versions, hardware, seeds, fold hashes, as JSON values. The first run's is kept, and any later
                one that differs from the last is added to it.
            storage: the address of a PostgreSQL database to keep the study in, without a password; None for where it is
                already, and for the folder itself.

        Raises:
            StudyInUseError: another run is writing there.
            StudyError: the folder holds another experiment's study, a damaged one, or other files and no study. Nothing
                in it has been touched.
        """
        folder, header = Path(folder), Header(experiment, (json.loads(json_text(environment)),))
        place = storage_of(folder, experiment.name, storage)
        check_place(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock.acquire(folder)
        except OSError as error:
            refused = refusal(folder, error) or error.strerror
            raise StudyError.about(folder, "must be a folder that can be written to", got=refused) from error
        try:
            opened, header = place.begin(lock, header)
        except BaseException:
            lock.release()
            raise
        ledger = cls(folder, experiment, lock, opened)
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
        name = self.experiment.name
        return self.patiently(lambda: optuna.load_study(study_name=name, storage=self._open.storage, sampler=sampler))

    def patiently(self, work: Callable[[], Value]) -> Value:
        """Do something with Optuna's study, again where its database went away over it; it goes on from any point."""
        return self._open.patiently(work)

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
        if self._has("select 1 from lora_trials where trial = ?", row[:1]):
            raise ValueError(f"trial must be new, got {record.trial}, which is recorded")
        query = f"insert into lora_trials values (?, ?, ?, ?, ?, ?, ?, ?) {KEEPING}"
        self._record(lambda database: database.execute(query, row))

    def set_trial_state(self, trial: int, state: TrialState, failure: str | None = None) -> None:
        """Change the state of a recorded trial, and say why if it failed.

        Raises:
            ValueError: no such trial.
        """
        query, row = "update lora_trials set state = ?, failure = ? where trial = ?", (state, failure, int(trial))
        if self._record(lambda database: database.execute(query, row).rowcount) == 0:
            raise ValueError(f"trial must be a recorded one, got {trial}")

    def trials(self) -> list[TrialRecord]:
        """Every recorded trial, by number."""
        rows = self._rows(
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
        if not self._has("select 1 from lora_trials where trial = ?", key[:1]):
            raise ValueError(f"trial must be a recorded one, got {result.key}")
        if self._has("select 1 from lora_cells where trial = ? and repeat = ? and fold = ?", key):
            raise ValueError(f"cell must be new, got {result.key}, which is recorded")
        row = _cell_row(result, self._keep_predictions(result.key, result))
        self._record(lambda database: insert_cell(database, row))

    def cell_keys(self) -> set[CellKey]:
        """The cells that are recorded, complete or failed."""
        return {CellKey(*row) for row in self._rows("select trial, repeat, fold from lora_cells")}

    def add_baseline(self, trained: BaselineResult) -> None:
        """Record a training of what is no adapter: its predictions first, then the row that says they are there.

        Raises:
            ValueError: it is recorded already.
        """
        if trained.key in self.baseline_keys():
            raise ValueError(f"training must be new, got {trained.key}, which is recorded")
        result = trained.result
        checksum = self._keep_predictions(trained.key, result)
        of_cells_alone = ("trial", "repeat", "fold", "wall_seconds", "pack", "pack_cells")
        shared = {name: value for name, value in _cell_row(result, checksum).items() if name not in of_cells_alone}
        more = {"trainable_parameters": trained.trainable_parameters, "step_bytes": trained.step_bytes}
        self._record(lambda database: insert_baseline(database, asdict(trained.key) | shared | more))

    def baseline_keys(self) -> set[BaselineKey]:
        """The trainings of baselines that are recorded, complete or failed."""
        return {baseline_key(row) for row in self._open.attempt(baselines_of)}

    def next_pack(self) -> int:
        """A pack number no recorded cell has."""
        ((number,),) = self._rows("select coalesce(max(pack) + 1, 0) from lora_cells")
        return int(number)

    def facts(self) -> dict[str, Any]:
        """Everything found out once for the study, as JSON values by name (see ``spec.facts``)."""
        return self._open.attempt(read_facts)

    def fact(self, fact: Fact[Value]) -> Value | None:
        """Something found out once for the study, or ``None``."""
        return fact.of(self.facts())

    def set_fact(self, fact: Fact[Value], value: Value) -> None:
        """Keep a value for this and every later run of the study."""
        self.set_facts({fact.name: fact.to_json(value)})

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep several, as JSON values by name, all or none of them."""
        self._record(lambda database: write_facts(database, facts))

    def tables(self) -> StudyTables:
        """The study as it stands, as ``read_study`` would give it."""
        return self._open.attempt(lambda database: tables_of(self.folder, database))

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
        self._open.keep(examples_path(self.folder), examples_content(labels, groups, answers))

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Record the verdict on what is recorded, and write ``verdict.json``; what is not finite becomes null."""
        self._open.attempt(lambda database: write_verdict(database, json_text(verdict)))
        self._write(verdict_file(verdict))

    def _write_header(self, header: Header) -> None:
        """Bring what the study says about itself up to date, in the database and then in the files made from it."""
        self._open.attempt(lambda database: write_header(database, header))
        self._write(header_files(self.tables()))

    def _keep_predictions(self, key: Key, result: CellResult) -> str | None:
        """Keep what a training predicted, and give its checksum; None where it failed."""
        if result.state != "complete":
            return None
        content = predictions_content(result)
        self._open.keep(predictions_path(self.folder, key), content)
        return checksum_of(content)

    def _record(self, work: Callable[[Connection], Value]) -> Value:
        """Write something, in one transaction."""

        def whole(database: Connection) -> Value:
            with database:
                return work(database)

        return self._open.attempt(whole)

    def _rows(self, query: str) -> list[Any]:
        return self._open.attempt(lambda database: database.execute(query).fetchall())

    def _has(self, query: str, values: tuple[int, ...]) -> bool:
        return self._open.attempt(lambda database: database.execute(query, values).fetchone()) is not None

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
