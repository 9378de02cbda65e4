"""The peak memory of a pack of cells beyond what each of its adapters must have, against that of one cell alone.

    python experiments/benchmarks/memory.py               # writes results/benchmarks/memory.json, in minutes

Every measurement is a process of its own. It loads the model and the data, gives back to the system what loading freed
(or training would find room there and seem to need less), notes the memory it takes, and trains one pack on some of the
quick start's data while its peak is watched, lanes included (``watch.py``). From that its adapters' own state is taken
off: values, every lane's gradients, two moments of the optimizer, the compute copy. Recorded are two ratios of medians:

- ``ratio``, of the peaks of the whole processes less their own state: what a machine must have;
- ``growth_ratio``, of the same less what was resident before training. It is stricter, for what is left - the cached
  states, the activations of one micro-batch in each lane, the rest - is little beside the libraries and the model.

A step of one cell may be too short to fill its micro-batches; what the engine expects of activations is recorded too.

Linux with glibc only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers.utils import logging as transformers_logging

from lora_search.adapters import AdapterPack
from lora_search.spec import AdapterSpec, Nuisance, load_experiment
from lora_search.store.records import CellKey
from lora_search.study.environment import describe_environment, hardware, versions
from lora_search.study.preparation import measured_dtype, prepare
from lora_search.training import Engine, EngineSettings, lanes_of

sys.path.insert(0, str(Path(__file__).parent))  # loaded by path, as the tests do, it still has its neighbour
from watch import proportional, watched

ROOT = Path(__file__).resolve().parents[2]
MANY = 20
RANK = 8
TARGET = 1.5
SHORT = ("data.max_examples=80", "training.epochs=1")
"""The peak of a training is that of a few steps of it."""


def measure_here(count: int, overrides: list[str]) -> dict[str, Any]:
    """Train a pack of ``count`` cells that differ in nothing but their trial's number; bytes by what they are."""
    prepared = prepare(load_experiment(ROOT / "experiments/quickstart.toml", [*SHORT, *overrides]))
    settings = EngineSettings(prepared.device, measured_dtype(prepared), lanes=lanes_of(prepared.device))
    engine = Engine(prepared.base, prepared.data, prepared.experiment.training, settings)
    adapter = AdapterSpec(rank=RANK, alpha=2 * RANK, targets="all-linear", layers="all")
    cells = [prepared.cell(CellKey(trial, 0, 0), adapter, Nuisance(learning_rate=2e-3)) for trial in range(count)]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    loaded = proportional(os.getpid())
    with watched() as watch:
        results = engine.train(cells, pack=0)
    peak = watch.bytes
    pack = AdapterPack(
        engine.forward.model,
        [cell.slot() for cell in cells],
        prepared.base.structure.head_modules,
        dtype=engine.settings.dtype,
        lanes=engine.lanes,
    )
    own = pack.nbytes + 2 * pack.values.nbytes
    return {
        "commit": describe_environment(prepared)["commit"],
        "cells": count,
        "loaded": loaded,
        "peak": peak,
        "own_state": own,
        "peak_beyond_own_state": peak - own,
        "growth_beyond_own_state": peak - loaded - own,
        "trained": sum(trained.result.state == "complete" for trained in results),
        "lanes": engine.lanes,
        "token_budget": engine.memory.token_budget,
        "checkpointing": engine.memory.checkpointing,
        "activations_expected": engine.memory.activation_bytes(cells, checkpointing=engine.memory.checkpointing),
        "precision": str(engine.settings.dtype).removeprefix("torch."),
    }


def measure(count: int, overrides: list[str]) -> dict[str, Any]:
    """``measure_here`` in a process that has done nothing else."""
    command = [sys.executable, __file__, "--child", str(count), *(f"--set={override}" for override in overrides)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a measurement of {count} cells failed:\n{done.stderr}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def ratios(rows: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """``ratio`` and ``growth_ratio`` of the measurements by number of cells, and the medians they are of."""
    peaks, growths = (
        {count: statistics.median(row[f"{what}_beyond_own_state"] for row in part) for count, part in rows.items()}
        for what in ("peak", "growth")
    )
    return {
        "ratio": peaks[MANY] / peaks[1],
        "growth_ratio": growths[MANY] / growths[1],
        "peak_beyond_own_state": {str(count): value for count, value in peaks.items()},
        "growth_beyond_own_state": {str(count): value for count, value in growths.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--child", type=int, help="measure this many cells in this process and print the record")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/memory.json")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if chosen.child is not None:
        print(json.dumps(measure_here(chosen.child, chosen.overrides)))
        return
    rows: dict[int, list[dict[str, Any]]] = {1: [], MANY: []}
    for _ in range(chosen.repeats):
        for count, measured in rows.items():
            measured.append(measure(count, chosen.overrides))
            print(measured[-1], flush=True)
    record = {
        "what": f"peak memory less the adapters' own state, a pack of {MANY} cells against one; bytes",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "commit": rows[1][0]["commit"],
        "overrides": [*SHORT, *chosen.overrides],
        "target": TARGET,
        **ratios(rows),
        "rounds": {str(count): part for count, part in rows.items()},
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("rounds", "versions")}, indent=2))


if __name__ == "__main__":
    main()
