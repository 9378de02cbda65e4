"""An oracle for ``oracle.py``: every adapter of an experiment's space at every rate on every fold, trained once.

    python experiments/audits/oracle_table.py EXPERIMENT.toml TABLE.csv [--rates RATE...] [--set KEY=VALUE]...

The rates should reach from where nothing is learned yet to where nothing is learned any more: what a search for the
rate has to be good at is the cliffs on both sides, and their luck. Trainings that teach nothing end as they do in a
study (``training.stop_stalled``), scored as they stand.

``results/audits/oracle/tweets.csv`` is of ``holdout.toml`` with ``--set name=tweets --set data.train=FOLDER/train.jsonl
--set data.max_examples=600 --set data.holdout=0 --set 'search.layers=["top-1/2", "top-1/6"]'``.

The table is written a pack at a time (one fold of the adapters that share their lowest layer), so that an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd

from lora_search import load_experiment
from lora_search.spec import Nuisance
from lora_search.store.records import CellKey, CellResult
from lora_search.study import Prepared, prepare
from lora_search.study.settings import settings_of
from lora_search.training import Cell, Engine

RATES = (1e-3, 1.8e-3, 3.2e-3, 5.6e-3, 1e-2, 1.8e-2, 3.2e-2)
PACK = 16
"""Trainings at once."""


def all_cells(prepared: Prepared, rates: list[float]) -> list[Cell]:
    """Every adapter at every rate on every fold; a setting has a trial's number."""
    search, cv = prepared.experiment.search, prepared.experiment.cv
    may_stall = prepared.experiment.training.stop_stalled
    settings = list(product(search.adapters(), rates))
    return [
        replace(prepared.cell(CellKey(trial, 0, fold), adapter, Nuisance(learning_rate=rate)), may_stall=may_stall)
        for fold in range(cv.folds)
        for trial, (adapter, rate) in enumerate(settings)
    ]


def place_of(cell: Cell) -> dict[str, Any]:
    """What tells a row of the table from all others."""
    adapter = {name: getattr(cell.adapter, name) for name in ("rank", "alpha", "targets", "layers")}
    return adapter | {"lr": cell.nuisance.learning_rate, "fold": cell.key.fold}


def line(prepared: Prepared, cell: Cell, result: CellResult) -> dict[str, Any]:
    """A row of the table."""
    return place_of(cell) | {
        "parameters": prepared.adapter_parameters(cell.adapter),
        "acc": result.scores["accuracy"],
        "ll": round(result.scores["log_loss"], 6),
        "steps": result.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the experiment")
    options = parser.parse_args()
    prepared = prepare(load_experiment(options.experiment, options.overrides))
    engine = Engine(prepared.base, prepared.data, prepared.experiment.training, settings_of(prepared, {}))
    rows = pd.read_csv(options.table).to_dict("records") if options.table.exists() else []
    packs: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    cells = all_cells(prepared, options.rates)
    done = {tuple(str(row[name]) for name in place_of(cells[0])) for row in rows}
    for cell in cells:
        if tuple(map(str, place_of(cell).values())) not in done:
            packs[cell.key.fold, prepared.depth(cell.adapter)].append(cell)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    for (fold, depth), cells in sorted(packs.items(), key=lambda item: item[0]):
        left = iter(cells)
        while pack := list(islice(left, PACK)):
            found = zip(pack, engine.train(pack, -1), strict=True)
            rows += [line(prepared, cell, one.result) for cell, one in found if not one.result.failure]
            pd.DataFrame(rows).to_csv(options.table, index=False)
            print(f"fold {fold}, from layer {depth}: {len(rows)} trainings recorded", flush=True)


if __name__ == "__main__":
    main()
