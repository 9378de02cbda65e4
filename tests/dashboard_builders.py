"""A recorded study to look at, made in a moment, and the dashboard served on a port of its own."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fabricated_studies import ENVIRONMENT, every_state_rows, experiment_mapping, frames
from starlette.applications import Starlette

from lora_search.metrics import CLASS_METRICS
from lora_search.spec import AdapterSpec, Experiment, Nuisance
from lora_search.statistics.judging import judge
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study
from lora_search.store.records import CellKey, CellResult, TrialRecord

EXAMPLES = 40
_MEASURED = ("train_loss", "train_examples", "steps", "tokens", "seconds", "wall_seconds", "pack", "pack_cells")


def record(
    folder: Path, rows: Sequence[Mapping[str, Any]] | None = None, *, experiment: Mapping[str, Any] | None = None,
    pack: int = 4, labels: Sequence[str] = ("negative", "positive"), **options: Any,
) -> Path:  # fmt: skip
    """Write a fabricated study as a run would have: database, predictions, tables and verdict. Returns its folder."""
    resolved = Experiment.model_validate(experiment_mapping(**{"name": folder.name, **(experiment or {})}))
    trials, cells = frames(
        rows or every_state_rows(), folds=resolved.cv.folds, metric=resolved.verdict.metric, pack=pack, **options
    )
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, EXAMPLES)
    environment = ENVIRONMENT | {"data": ENVIRONMENT["data"] | {"labels": list(labels)}}
    with Ledger.open(folder, resolved, environment) as ledger:
        ledger.write_examples(truth, np.arange(EXAMPLES))
        for row in trials.to_dict("records"):
            ledger.add_trial(trial_record(row))
        for row in cells.to_dict("records"):
            ledger.add_cell(cell_result(row, truth, generator, resolved.cv.folds))
        ledger.write_verdict(judge(ledger.tables()).to_dict())
        ledger.write_tables()
    return folder


def add_cells(folder: Path, row: Mapping[str, Any], cells: int) -> None:
    """One more trial of a recorded study, with this many cells, as its run would add them."""
    experiment = read_study(folder).experiment
    _, found = frames([{**row, "cells": cells}], folds=experiment.cv.folds, pack=cells, seed=9)
    truth = np.zeros(EXAMPLES, dtype=np.int64)
    with Ledger.open(folder, experiment, ENVIRONMENT) as ledger:
        ledger.add_trial(trial_record(row))
        for cell in found.to_dict("records"):
            ledger.add_cell(cell_result({**cell, "pack": 10_000}, truth, np.random.default_rng(1), experiment.cv.folds))


def trial_record(row: Mapping[str, Any]) -> TrialRecord:
    """A row of ``fabricated_studies`` as the ledger takes it."""
    adapter = AdapterSpec(**{name: row[name] for name in AdapterSpec.model_fields})
    nuisance = Nuisance(learning_rate=row["learning_rate"], dropout=row["dropout"])
    return TrialRecord(
        row["trial"], adapter, nuisance, row["adapter_parameters"], row["head_parameters"], row["origin"], row["state"],
        row["failure"],
    )  # fmt: skip


def cell_result(row: Mapping[str, Any], truth: np.ndarray, generator: np.random.Generator, folds: int) -> CellResult:
    """A cell with predictions that are right about as often as its score says."""
    examples = np.arange(row["fold"], len(truth), folds)
    right = generator.random(len(examples)) < row["accuracy"]
    first = np.where(right == (truth[examples] == 0), 0.8, 0.2)
    return CellResult(
        key=CellKey(row["trial"], row["repeat"], row["fold"]),
        state="complete",
        scores={metric.name: row[metric.name] for metric in CLASS_METRICS},
        examples=examples,
        probabilities=np.stack([first, 1 - first], axis=1).astype(np.float32),
        **{name: row[name] for name in _MEASURED},
    )


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A dashboard that answers."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        """One request; the path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            found = connection.getresponse()
            return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    @contextmanager
    def events(self, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Server-sent events as (name, value)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path)
        try:
            yield _parsed(connection.getresponse())
        finally:
            connection.close()


def _parsed(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    while line := answer.readline():
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


@contextmanager
def served(app: Starlette) -> Iterator[Served]:
    """The application behind a server in a thread, on a free port."""
    settings = uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(10)
