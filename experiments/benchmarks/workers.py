"""Is a study with two workers done in half the time? The quick start by one worker of one CPU, and by more of them.

    python experiments/benchmarks/workers.py [--workers 1 2] [--rounds 2] [--set KEY=VALUE]... [--out FILE]

Each study is a process of its own, in a fresh folder, without a report. What is compared is the wall clock from its
start to the verdict, loading included, and the cells trained in a second of it: how many trainings a study takes may
differ by what was known when a pack was made up. ``this process`` is a study without ``execution.workers``, as most are
run: it has as many CPUs as the most workers have together. Rounds alternate, so a noisy machine slows all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_search.store.files import json_text, write_atomically
from lora_search.store.reader import read_study
from lora_search.study.environment import commit_of, hardware, versions

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "lora_search")
HERE = "this process"


def timed(spec: Path, overrides: Sequence[str], folder: Path, cpus: int) -> dict[str, Any]:
    """Run a study; what it took."""
    sets = [part for override in overrides for part in ("--set", override)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cpus)}
    start = time.perf_counter()
    subprocess.run(
        [*PROGRAM, "run", str(spec), "--results", str(folder), *sets],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - start
    (study,) = (path.parent for path in folder.glob("*/study.db"))
    tables = read_study(study)
    verdict = tables.verdict()
    assert verdict is not None  # a study that ran to its end has one
    cells = len(tables.cells)
    return {"seconds": seconds, "cells": cells, "cells_per_second": cells / seconds, "sentence": verdict["sentence"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=ROOT / "experiments/quickstart.toml")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/workers.json")
    options = parser.parse_args()
    most = max(options.workers)
    kinds = {
        f"{count} workers": (count, ["execution.cpus_per_worker=1", f"execution.workers={count}"])
        for count in options.workers
    } | {HERE: (most, [])}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for turn in range(options.rounds):
        for name, (cpus, asked) in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(timed(options.spec, [*options.overrides, *asked], Path(folder), cpus))
            print(f"round {turn + 1}, {name}: {found[name][-1]}", flush=True)
    fewest = f"{min(options.workers)} workers"

    def ratio(name: str, what: str) -> float:
        pairs = zip(found[name], found[fewest], strict=True)
        return statistics.median(one[what] / other[what] for one, other in pairs)

    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(ROOT),
        "spec": options.spec.name,
        "overrides": options.overrides,
        "throughput_ratio": {name: ratio(name, "cells_per_second") for name in kinds if name != fewest},
        "time_ratio": {name: 1.0 / ratio(name, "seconds") for name in kinds if name != fewest},
        "rounds": found,
        "hardware": hardware(),
        "versions": versions(),
    }
    write_atomically(options.out, json_text(record))
    print({key: record[key] for key in ("throughput_ratio", "time_ratio")})


if __name__ == "__main__":
    main()
