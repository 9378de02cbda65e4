"""From start to verdict: the quick start against its own adapters, trained in full by the loop people write.

``same_work.py`` compares the two on the same cells. A study also trains fewer of them, since racing stops trials, and
others besides: other learning rates, extra repeats of finalists and the head alone. Here all of that counts. Ours is
the wall clock of ``run_study`` on the quick start, from reading data and model to the last verdict. The naive loop
(``naive_loop.py``) trains every adapter of that very study on every planned fold, one cell after another; it gives
scores, no verdict. It too must find each adapter's learning rate, or it would compare the luck of rates: it has a grid
of three.
``ratio`` is to that. Extra repeats are for the trials that racing left, and the loop, which does not know them
beforehand, has as much to judge by only when it repeats every trial as often: ``ratio_with_repeats`` is to that.

The naive loop in full would take long; what is trained is a sample of its cells, stratified by what their time depends
on: the class (targets, layers) of a trial. Each class of the study's trials is sampled by as many cells, and its other
cells are counted at the mean of those, its other rates too. ``--full`` trains every adapter on every fold, at one rate.

    python experiments/benchmarks/same_decision.py        # writes results/benchmarks/same_decision.json

Rounds alternate study and sample, so a noisy machine slows both; each round has a fresh study, samples other trials and
folds than the one before, and has its own ratio, of which the median is reported. Loading data and model is in our
time, as is all tokenization; of the naive loop's only the model's, which it loads per cell, as the loop does.
``overhead`` is the share of our time that trains nothing: neither forward nor backward nor optimizer, nor the fits of
the baseline that is no neural network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from clocks import computing
from naive_loop import naive, quiet

from lora_search import load_experiment, run_study
from lora_search.spec import ADAPTER_FIELDS, AdapterSpec, Experiment, Nuisance
from lora_search.spec.locations import locate
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey
from lora_search.study.environment import hardware, versions
from lora_search.study.preparation import Prepared, prepare
from lora_search.training import Cell

ROOT = Path(__file__).resolve().parents[2]
RATES = 3
"""In the naive loop's grid."""
RULE = "sum over classes of cells times the mean seconds of the class's sampled cells"

Keys = Sequence[CellKey]


def classes_of(trials: pd.DataFrame, folds: int, repeats: int) -> dict[str, list[CellKey]]:
    """Every planned cell of every trial, by class of trial: ``"attention, top-1/2"``. Trials in order, then folds."""
    found: dict[str, list[CellKey]] = {}
    for row in trials.sort_values("trial").itertuples():
        keys = [CellKey(int(row.trial), repeat, fold) for repeat, fold in product(range(repeats), range(folds))]
        found.setdefault(f"{row.targets}, {row.layers}", []).extend(keys)
    return found


def sample_of(keys: Keys, size: int, number: int) -> list[CellKey]:
    """``size`` cells of one class, of different trials and folds as far as there are; all where size exceeds them.

    Along the diagonals of the class's table of trials and folds; sample ``number`` goes on where the one before
    stopped.
    """
    of_trial: dict[int, list[CellKey]] = {}
    for key in keys:
        of_trial.setdefault(key.trial, []).append(key)
    rows = list(of_trial.values())
    planned = len(rows[0])
    diagonals = [row[(place + shift) % planned] for shift in range(planned) for place, row in enumerate(rows)]
    return [diagonals[(size * number + turn) % len(diagonals)] for turn in range(min(size, len(diagonals)))]


def extrapolate(planned: Mapping[str, int], sampled: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Seconds of all planned cells from those of a sample of each class.

    Args:
        planned: cells of each class.
        sampled: seconds of its sampled cells.

    Raises:
        ValueError: a class has no sampled cell, or more than it has cells.
    """
    classes = {}
    for name, cells in planned.items():
        seconds = list(sampled.get(name, ()))
        if not 0 < len(seconds) <= cells:
            raise ValueError(f"{name}: must have 1 to {cells} sampled cells, got {len(seconds)}")
        mean = statistics.fmean(seconds)
        classes[name] = {
            "cells": cells,
            "sampled_cells": len(seconds),
            "seconds_per_cell": mean,
            "seconds": cells * mean,
        }
    return {
        "cells": sum(planned.values()),
        "sampled_cells": sum(part["sampled_cells"] for part in classes.values()),
        "seconds": sum(part["seconds"] for part in classes.values()),
        "classes": classes,
    }


def cell_of(prepared: Prepared, row: Any, key: CellKey) -> Cell:
    """A cell of a recorded trial, as the study would train it."""
    adapter = AdapterSpec(
        rank=int(row.rank), alpha=float(row.alpha), targets=row.targets, layers=row.layers, scaling=row.scaling
    )
    return prepared.cell(key, adapter, Nuisance(learning_rate=float(row.learning_rate), dropout=float(row.dropout)))


def ours(experiment: Experiment) -> tuple[StudyTables, dict[str, Any], float, float]:
    """A fresh study from start to verdict: its tables, the verdict, its wall clock in seconds, and how many of those
    were computing (see ``clocks``)."""
    with tempfile.TemporaryDirectory() as results, computing() as clock:
        start = time.perf_counter()
        tables = run_study(experiment, results, progress=False)
        seconds = time.perf_counter() - start
        verdict = tables.verdict()
        assert verdict is not None  # run_study has just written it
        fits = tables.baselines.query("baseline == 'tfidf'")["seconds"].sum()
        return tables, verdict, seconds, clock.seconds + float(fits)


def theirs(
    prepared: Prepared, base: Path, tables: StudyTables, size: int | None, number: int, bf16: bool
) -> dict[str, Any]:
    """The naive loop over a sample of the study's planned cells (all for None), and what it comes to in full."""
    cv = prepared.experiment.cv
    trials = {int(row.trial): row for row in tables.trials.itertuples()}
    classes = classes_of(tables.trials.drop_duplicates(list(ADAPTER_FIELDS)), cv.folds, cv.repeats)
    rates = RATES if prepared.experiment.search.tunes_rate else 1
    recorded = {
        (int(row.trial), int(row.repeat), int(row.fold)): float(row.accuracy) for row in tables.cells.itertuples()
    }
    seconds: dict[str, list[float]] = {}
    cells = []
    for name, keys in classes.items():
        for key in sample_of(keys, len(keys) if size is None else size, number):
            cell = cell_of(prepared, trials[key.trial], key)
            start = time.perf_counter()
            (accuracy,) = naive(prepared, [cell], base, bf16=bf16)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            cells.append(
                {
                    "class": name,
                    "trial": key.trial,
                    "rank": cell.adapter.rank,
                    "fold": key.fold,
                    "seconds": seconds[name][-1],
                    "naive_accuracy": accuracy,
                    "our_accuracy": recorded.get((key.trial, key.repeat, key.fold)),
                }
            )
            print(f"  naive, {name}, trial {key.trial}, fold {key.fold}: {seconds[name][-1]:.1f} s", flush=True)
    return {**extrapolate({name: rates * len(keys) for name, keys in classes.items()}, seconds), "sample": cells}


def measure(rounds: int, overrides: list[str], size: int | None, bf16: bool) -> dict[str, Any]:
    experiment = load_experiment(ROOT / "experiments/quickstart.toml", overrides)
    prepared = prepare(experiment)
    base = locate(experiment.model.base)
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        tables, verdict, our_seconds, computing_seconds = ours(experiment)
        print(f"round {number}, ours: {our_seconds:.1f} s, {verdict['cells_trained']} cells", flush=True)
        if not found:
            # what the naive loop's libraries import with their first training is no cell's time
            first = cell_of(prepared, next(tables.trials.itertuples()), CellKey(0, 0, 0))
            naive(prepared, [replace(first, train=first.train[:2], evaluate=first.evaluate[:2])], base, bf16=bf16)
        full = theirs(prepared, base, tables, size, number, bf16)
        repeats = 1 + int(tables.cells["repeat"].max())
        found.append(
            {
                "our_seconds": our_seconds,
                "overhead": 1.0 - computing_seconds / our_seconds,
                "naive_seconds": full["seconds"],
                "ratio": full["seconds"] / our_seconds,
                "repeats": repeats,
                "ratio_with_repeats": full["seconds"] * repeats / experiment.cv.repeats / our_seconds,
                "status": verdict["status"],
                "our_cells": verdict["cells_trained"],
                "our_cells_skipped_by_racing": verdict["cells_skipped_by_racing"],
                "naive": full,
            }
        )
        print(f"round {number}, ratio {found[-1]['ratio']:.2f}", flush=True)
    return {
        "ratio": statistics.median(row["ratio"] for row in found),
        "ratio_with_repeats": statistics.median(row["ratio_with_repeats"] for row in found),
        "our_seconds": statistics.median(row["our_seconds"] for row in found),
        "overhead": statistics.median(row["overhead"] for row in found),
        "naive_seconds": statistics.median(row["naive_seconds"] for row in found),
        "naive_is_extrapolated": any(row["naive"]["sampled_cells"] < row["naive"]["cells"] for row in found),
        "extrapolation": RULE,
        "examples": len(prepared.splits.development),
        "precision": tables.facts["precision"],
        "rounds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cells-per-class", type=int, default=1, help="cells of each class that the naive loop trains")
    parser.add_argument("--naive-bf16", action="store_true", help="autocast, where same_work.py found it the faster")
    parser.add_argument("--full", action="store_true", help="train every cell of the naive loop; extrapolate nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/same_decision.json")
    chosen = parser.parse_args()
    for name, value in (("--rounds", chosen.rounds), ("--cells-per-class", chosen.cells_per_class)):
        if value < 1:
            parser.error(f"{name}: must be at least 1, got {value}")
    quiet()
    record = {
        "what": "the quick start from start to verdict against its trials by the naive loop in full",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "overrides": chosen.overrides,
        "naive_bf16": chosen.naive_bf16,
        **measure(chosen.rounds, chosen.overrides, None if chosen.full else chosen.cells_per_class, chosen.naive_bf16),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("rounds", "versions")}, indent=2))


if __name__ == "__main__":
    main()
