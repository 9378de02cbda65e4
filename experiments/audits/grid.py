"""An exhaustive grid on real data: every configuration on every fold of every repeat, for other audits to sample from.

    python experiments/audits/grid.py [--set KEY=VALUE]... [--out results/audits/grid]

400 quotes of the quick start's data, its model and its training; 24 configurations (ranks 1, 2, 4, 8; query+value and
all-linear; all layers, the top half, the top third; alpha twice the rank; one learning rate per target set and rank);
5 folds x 4 repeats: 480 cells. Nothing is raced and nothing is chosen, so what a cheaper search would have missed can
be counted: ``replay.py`` races over these scores, ``calibration.py --grid`` takes its noise from them.

cells.csv gets a pack at a time (the configurations of one fold that share their lowest layer), one repeat after
another, so that a run cut short leaves whole repeats; run again, it goes on. grid.json says with what it was made.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd

from lora_search.spec import AdapterSpec, Nuisance, load_experiment
from lora_search.store.records import CellKey, CellResult
from lora_search.study.environment import describe_environment
from lora_search.study.preparation import Prepared, measured_dtype, prepare
from lora_search.training import Engine, EngineSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDS, REPEATS, EXAMPLES = 5, 4, 400
PORTABLE = ("training.precision='fp32'",)
"""So that a grid begun on one machine can be gone on with on another."""
RANKS = (1, 2, 4, 8)
LEARNING_RATES = {
    "query+value": {1: 8e-3, 2: 8e-3, 4: 5e-3, 8: 5e-3},
    "all-linear": {1: 4e-3, 2: 4e-3, 4: 2e-3, 8: 2e-3},
}
"""By rank: smaller adapters need larger steps. All-linear: the best of 1e-3, 2e-3 and 4e-3 on one fold of another seed,
top third (rank 1: 0.578, 0.706, 0.739; rank 8: 0.728, 0.772, 0.644); query+value: what worked in the recorded quick
start."""
LAYERS = ("all", "top-1/2", "top-1/3")


@dataclass(frozen=True)
class Configuration:
    """One row of the grid; ``trial`` counts from the smallest adapter."""

    trial: int
    adapter: AdapterSpec
    nuisance: Nuisance
    parameters: int


def configurations(prepared: Prepared) -> list[Configuration]:
    """All 24, smallest first."""
    found = []
    for rank, targets, layers in product(RANKS, LEARNING_RATES, LAYERS):
        adapter = AdapterSpec(rank=rank, alpha=2 * rank, targets=targets, layers=layers)
        found.append(
            (prepared.adapter_parameters(adapter), adapter, Nuisance(learning_rate=LEARNING_RATES[targets][rank]))
        )
    found.sort(key=lambda one: one[0])
    return [Configuration(trial, *rest, parameters) for trial, (parameters, *rest) in enumerate(found)]


def packs(prepared: Prepared, rows: list[Configuration]) -> list[list[Configuration]]:
    """Configurations to train together: those of one lowest layer, the cheap ones first."""
    depths = {row.trial: prepared.depth(row.adapter) for row in rows}
    return [[row for row in rows if depths[row.trial] == depth] for depth in sorted(set(depths.values()), reverse=True)]


def line(row: Configuration, result: CellResult, metric: str) -> dict[str, Any]:
    """One line of cells.csv."""
    return {
        "trial": row.trial,
        "rank": row.adapter.rank,
        "alpha": row.adapter.alpha,
        "targets": row.adapter.targets,
        "layers": row.adapter.layers,
        "learning_rate": row.nuisance.learning_rate,
        "adapter_parameters": row.parameters,
        "repeat": result.key.repeat,
        "fold": result.key.fold,
        "state": result.state,
        "score": result.scores.get(metric),
        "log_loss": result.scores.get("log_loss"),
        "train_loss": result.train_loss,
        "seconds": round(result.seconds, 3),
        "wall_seconds": round(result.wall_seconds, 3),
        "pack_cells": result.pack_cells,
    }


def record(overrides: list[str], out: Path) -> None:
    """Train what cells.csv lacks."""
    given = [f"cv.folds={FOLDS}", f"cv.repeats={REPEATS}", f"data.max_examples={EXAMPLES}", *PORTABLE, *overrides]
    experiment = load_experiment(ROOT / "experiments/quickstart.toml", given)
    prepared = prepare(experiment)
    cv, metric = experiment.cv, experiment.verdict.metric
    rows = configurations(prepared)
    dtype = measured_dtype(prepared)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "experiment": experiment.model_dump(mode="json", exclude={"search", "verdict"}),
        "metric": metric,
        "precision": str(dtype).removeprefix("torch."),
        "configurations": len(rows),
    }
    described = out / "grid.json"
    kept = json.loads(described.read_text(encoding="utf-8")) if described.exists() else None
    if kept is not None and kept["settings"] != settings:
        raise SystemExit(f"{described} is of other settings; choose another --out")
    if kept is None:
        facts = {"settings": settings, "begun": datetime.now(UTC).isoformat(timespec="seconds")}
        described.write_text(json.dumps(facts | describe_environment(prepared), indent=1) + "\n", encoding="utf-8")
    table = out / "cells.csv"
    cells = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=["trial", "repeat", "fold"])
    done = {(int(trial), int(repeat), int(fold)) for trial, repeat, fold in cells[["trial", "repeat", "fold"]].values}
    engine = Engine(prepared.base, prepared.data, experiment.training, EngineSettings(prepared.device, dtype))
    for repeat, fold, pack in product(range(cv.repeats), range(cv.folds), packs(prepared, rows)):
        if all((row.trial, repeat, fold) in done for row in pack):
            continue
        work = [prepared.cell(CellKey(row.trial, repeat, fold), row.adapter, row.nuisance) for row in pack]
        results = [trained.result for trained in engine.train(work, pack=0)]
        fresh = pd.DataFrame([line(row, result, metric) for row, result in zip(pack, results, strict=True)])
        cells = fresh if cells.empty else pd.concat([cells, fresh], ignore_index=True)
        replacement = table.with_suffix(".new")
        cells.to_csv(replacement, index=False)
        replacement.replace(table)  # a run killed while writing leaves the table it had
        scores = " ".join(f"{score:.3f}" for score in fresh["score"])
        print(f"{len(cells)} cells; repeat {repeat} fold {fold}, {results[0].wall_seconds:.0f} s: {scores}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/grid")
    options = parser.parse_args()
    record(options.overrides, options.out)


if __name__ == "__main__":
    main()
