"""Experiments, trials and cells for the tests of the store; every number follows from the key, so it can be checked."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lora_search.spec import AdapterSpec, Experiment, Nuisance
from lora_search.store.records import CellKey, CellResult, TrialRecord

ENVIRONMENT = {"torch": "2.13.0", "folds": {"0": "abc"}}


def experiment(**changes: Any) -> Experiment:
    """``experiment(search={"rank": 4})`` changes what differs from the smallest one."""
    values: dict[str, Any] = {
        "name": "reviews",
        "model": {"base": "hub:owner/model"},
        "data": {"train": "hub:owner/data"},
        "verdict": {"metric": "macro_f1"},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Experiment.model_validate(values)


def trial(number: int, rank: int = 8, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "trial": number,
        "adapter": AdapterSpec(rank=rank, alpha=2.0 * rank, targets="query+value", layers="top-1/2"),
        "nuisance": Nuisance(learning_rate=1e-3, dropout=0.1),
        "adapter_parameters": 1000 * rank,
        "head_parameters": 770,
        "origin": "sampler",
    }
    return TrialRecord(**{**fields, **changes})


def cell(number: int, repeat: int = 0, fold: int = 0, **changes: Any) -> CellResult:
    generator = np.random.default_rng([number, repeat, fold])
    probabilities = generator.dirichlet(np.ones(3), size=7).astype(np.float32)
    fields: dict[str, Any] = {
        "key": CellKey(number, repeat, fold),
        "state": "complete",
        "scores": {
            "accuracy": 0.5 + 0.01 * fold,
            "macro_f1": 0.6 + 0.01 * fold,
            "matthews_correlation": 0.2,
            "log_loss": 0.69,
        },
        "train_loss": 0.4,
        "examples": np.arange(7, dtype=np.int64) * 3 + fold,
        "probabilities": probabilities,
        "train_examples": 28,
        "steps": 12,
        "tokens": 3456,
        "seconds": 1.5,
        "wall_seconds": 8.0,
        "pack": 0,
        "pack_cells": 4,
    }
    return CellResult(**{**fields, **changes})


def failed_cell(number: int, repeat: int = 0, fold: int = 0, **changes: Any) -> CellResult:
    fields: dict[str, Any] = {
        "state": "failed",
        "scores": {},
        "train_loss": float("nan"),
        "examples": np.zeros(0, dtype=np.int64),
        "probabilities": np.zeros((0, 3), dtype=np.float32),
        "failure": "the loss became NaN in step 3",
    }
    return cell(number, repeat, fold, **{**fields, **changes})


FORMAT_1 = """
pragma foreign_keys = off;
create table old (
    trial integer not null references lora_trials, repeat integer not null, fold integer not null,
    state text not null, accuracy real, macro_f1 real, matthews_correlation real, log_loss real, train_loss real,
    examples integer not null, train_examples integer not null, steps integer not null, tokens integer not null,
    seconds real not null, wall_seconds real not null, pack integer not null, pack_cells integer not null,
    failure text, finished_at text not null, primary key (trial, repeat, fold)
) without rowid;
insert into old select trial, repeat, fold, state, json_extract(scores, '$.accuracy'),
    json_extract(scores, '$.macro_f1'), json_extract(scores, '$.matthews_correlation'),
    json_extract(scores, '$.log_loss'), train_loss, examples, train_examples, steps, tokens, seconds, wall_seconds,
    pack, pack_cells, failure, finished_at from lora_cells;
drop table lora_cells;
alter table old rename to lora_cells;
delete from lora_study where key = 'verdict';
pragma user_version = 1;
"""


def as_format_1(folder: Path) -> None:
    """Make a study what the first version of this package would have left."""
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        connection.executescript(FORMAT_1)


def verdict(**changes: Any) -> dict[str, Any]:
    """The content of a verdict.json over one trial, as far as its readers rely on it."""
    chosen = {
        "trial": 0,
        "adapter": {"rank": 8},
        "score_mean": 0.6,
        "score_interval": [0.5, None],
        "adapter_parameters": 8000,
        "head_parameters": 770,
        "seconds": 1.5,
    }
    fields: dict[str, Any] = {
        "status": "decided",
        "sentence": "Rank 8.",
        "recommended": chosen,
        "best": chosen,
        "margin": 0.01,
        "confidence": 0.95,
        "probability_not_worse": 1.0,
        "metric": "macro_f1",
        "cells_trained": 5,
        "cells_skipped_by_racing": 0,
        "corrected_score": None,
        "corrected_interval": None,
        "holdout_score": None,
        "more_cells_needed": None,
        "warnings": [],
        "comparisons": [],
    }
    return {**fields, **changes}


@contextmanager
def another_run(folder: Path, *storage: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has recorded a trial and keeps the study open until it is killed."""
    holder = (
        "import sys\n"
        "from store_builders import ENVIRONMENT, experiment, trial\n"
        "from lora_search.store.ledger import Ledger\n"
        "with Ledger.open(sys.argv[1], experiment(), ENVIRONMENT, *sys.argv[2:]) as ledger:\n"
        "    ledger.add_trial(trial(0))\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder), *storage],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
