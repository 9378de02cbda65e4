"""An older checkout's engine against this one's: how many times as many cells in a second?

    git worktree add /tmp/older COMMIT
    python experiments/benchmarks/pace.py /tmp/older          # writes results/benchmarks/pace.json

Both train the same pack of cells of a model of MiniLM's shape with random weights, on random short texts, in a lane
per thread (``OMP_NUM_THREADS``), in two processes that take turns. Recorded are wall clock and processor time, lanes
included: what else runs on a machine lengthens the first more than the second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = ("seconds", "processor_seconds")


def train_when_asked(layers: str, precision: str, examples: int, cells: int, tiny: bool) -> None:
    """For every line on standard input train once, with whichever engine this process imports, and print how long it
    took; a first time, which fills the cache of states and warms up, before any."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from toy_models import MINILM, TINY, pack_of, random_base, random_data

    from lora_search.spec.experiment import TrainingSpec
    from lora_search.training import Engine, EngineSettings, lanes_of

    device = torch.device("cpu")
    base = random_base({**MINILM, **TINY} if tiny else MINILM, torch.float32, device)
    data = random_data(examples, base.model.config.vocab_size)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    settings = EngineSettings(device, dtype, lanes=lanes_of(device))
    engine = Engine(base, data, TrainingSpec(epochs=1, batch_size=16), settings)
    pack = pack_of(base, examples, cells, layers)
    engine.train(pack, pack=0)
    for _ in sys.stdin:
        before, start = os.times(), time.perf_counter()
        engine.train(pack, pack=0)
        seconds, after = time.perf_counter() - start, os.times()
        print(json.dumps({"seconds": seconds, "processor_seconds": sum(after[:4]) - sum(before[:4])}), flush=True)


def started(checkout: Path, work: dict[str, Any]) -> subprocess.Popen[str]:
    """A process that trains when asked, with the engine of a checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, str(checkout), "--work", json.dumps(work)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def asked(process: subprocess.Popen[str]) -> dict[str, float]:
    """Have it train once."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a process ended before it had trained: {' '.join(process.args)}")  # type: ignore[arg-type]
    return json.loads(line)  # type: ignore[no-any-return]


def measure(older: Path, rounds: int, work: dict[str, Any]) -> dict[str, Any]:
    """Every round's times of both, and the ratios of the older one's to the newer one's."""
    with ExitStack() as stack:
        teams = [stack.enter_context(started(checkout, work)) for checkout in (older, ROOT)]
        times = []
        for number in range(rounds):
            first, second = teams if number % 2 == 0 else teams[::-1]
            pair = asked(first), asked(second)
            times.append(pair if number % 2 == 0 else pair[::-1])
    row: dict[str, Any] = {"older": [pair[0] for pair in times], "newer": [pair[1] for pair in times]}
    for clock in CLOCKS:
        row[f"ratio_of_{clock}"] = statistics.median(pair[0][clock] / pair[1][clock] for pair in times)
        row[f"ratio_of_least_{clock}"] = min(one[clock] for one in row["older"]) / min(
            one[clock] for one in row["newer"]
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path, help="a checkout of the older commit")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--cells", type=int, nargs="+", default=[4, 8], help="how many are trained together")
    parser.add_argument("--layers", nargs="+", default=["all", "top-1/2"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["bf16", "fp32"])
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to try the code; nothing is written")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/pace.json")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    if chosen.work:
        train_when_asked(**chosen.work)
        return
    from lora_search.study.environment import commit_of, hardware, versions

    record: dict[str, Any] = {
        "what": "an older engine against this one, the same packs of cells",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": {
            who: commit_of(folder / "lora_search") for who, folder in (("older", chosen.older), ("newer", ROOT))
        },
        "hardware": hardware(),
        "versions": versions(),
        "examples": chosen.examples,
        "packs": {},
    }
    for precision in chosen.precision:
        for layers in chosen.layers:
            for cells in chosen.cells:
                work = {"layers": layers, "precision": precision, "examples": chosen.examples, "cells": cells}
                row = measure(chosen.older, chosen.rounds, {**work, "tiny": chosen.tiny})
                record["packs"][f"{precision}, {layers}, {cells} cells"] = row
                ratios = {name: round(value, 3) for name, value in row.items() if name.startswith("ratio")}
                print(precision, layers, cells, "cells", ratios, flush=True)
    if not chosen.tiny:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
