"""Does a cell's result depend on what it was packed with? The quick start's cells trained packed, and each alone.

    python experiments/audits/packed_alone.py [--trials 8] [--fold 0] [--set KEY=VALUE]... [--out FILE]

Both are the same training but for the order of floating-point additions: rows meet other rows in a product, and are cut
into other micro-batches. Over the steps of a training these differences grow, so that now and then an example near the
boundary falls on its other side. Counted are such examples, of all that are predicted out of fold, per layer range; and
how far probabilities and scores move. Every engine begins with an empty cache.

Results go to results/audits/packed_alone.json.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from lora_search.spec import AdapterSpec, Nuisance, load_experiment
from lora_search.store.records import CellKey, CellResult
from lora_search.study.environment import describe_environment, hardware, versions
from lora_search.study.preparation import Prepared, measured_dtype, prepare
from lora_search.training import Cell, Engine, EngineSettings, lanes_of

ROOT = Path(__file__).resolve().parents[2]
RANGES = ("all", "top-1/2", "top-1/3")
LEARNING_RATE = 3e-3


def cells_of(prepared: Prepared, layers: str, trials: int, fold: int) -> list[Cell]:
    """Trials on one fold that differ in rank and targets."""
    ranks, targets = prepared.experiment.search.rank, prepared.experiment.search.targets
    chosen = list(islice(zip(cycle(ranks), cycle(targets), strict=False), trials))
    specs = [AdapterSpec(rank=rank, alpha=2 * rank, targets=target, layers=layers) for rank, target in chosen]
    return [
        prepared.cell(CellKey(trial, 0, fold), spec, Nuisance(learning_rate=LEARNING_RATE))
        for trial, spec in enumerate(specs)
    ]


def train(prepared: Prepared, settings: EngineSettings, packs: list[list[Cell]]) -> list[CellResult]:
    """Results of all cells, the packs trained one after another by one engine."""
    engine = Engine(prepared.base, prepared.data, prepared.experiment.training, settings)
    return [trained.result for number, pack in enumerate(packs) for trained in engine.train(pack, number)]


def compare(packed: list[CellResult], alone: list[CellResult]) -> dict[str, Any]:
    """How far the two agree: examples predicted otherwise, the largest and the median difference of a probability,
    the largest of a score."""
    moved = [np.abs(first.probabilities - second.probabilities) for first, second in zip(packed, alone, strict=True)]
    other = [
        int((first.probabilities.argmax(1) != second.probabilities.argmax(1)).sum())
        for first, second in zip(packed, alone, strict=True)
    ]
    scores = [
        abs(first.scores["accuracy"] - second.scores["accuracy"]) for first, second in zip(packed, alone, strict=True)
    ]
    return {
        "cells": len(packed),
        "predictions": sum(len(result.examples) for result in packed),
        "predicted_otherwise": sum(other),
        "predicted_otherwise_by_cell": other,
        "largest_probability_difference": float(max(part.max() for part in moved)),
        "median_probability_difference": float(np.median(np.concatenate(moved))),
        "largest_accuracy_difference": max(scores),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8, help="cells of each layer range, packed together")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/packed_alone.json")
    options = parser.parse_args()
    prepared = prepare(load_experiment(ROOT / "experiments/quickstart.toml", options.overrides))
    dtype = measured_dtype(prepared)
    settings = EngineSettings(prepared.device, dtype, lanes=lanes_of(prepared.device))
    found = {}
    for layers in RANGES:
        cells = cells_of(prepared, layers, options.trials, options.fold)
        found[layers] = compare(
            train(prepared, settings, [cells]), train(prepared, settings, [[cell] for cell in cells])
        )
        print(layers, found[layers], flush=True)
    record = {
        "what": "predictions of the same cells, packed together and each alone",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": describe_environment(prepared)["commit"],
        "hardware": hardware(),
        "versions": versions(),
        "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
        "overrides": options.overrides,
        "predictions": sum(part["predictions"] for part in found.values()),
        "predicted_otherwise": sum(part["predicted_otherwise"] for part in found.values()),
        "ranges": found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("ranges", "versions")}, indent=1))


if __name__ == "__main__":
    main()
