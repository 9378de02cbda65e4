"""An older checkout's engine against this one's: how many times as many cells in a second?

    git worktree add /tmp/older COMMIT
    python experiments/benchmarks/pace.py /tmp/older          # writes results/benchmarks/pace.json

Both train the same pack of 8 cells of a model of MiniLM's shape with random weights, on random short texts, in a lane
per core, in processes of their own that take turns; of every one of them the second training is measured. Recorded are
wall clock and processor time, lanes included: what else runs on a machine lengthens the first more than the second.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[2]
MINILM = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
RANKS = (1, 2, 4, 8, 16)
TARGETS = ("query+value", "attention", "all-linear")
CELLS = 8


def measure_here(layers: str, precision: str, examples: int, tiny: bool) -> dict[str, float]:
    """Seconds of one training by whichever engine this process imports: its wall clock, and the processor's time."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from toy_models import TINY, cells_of, random_base, random_data

    from lora_search.spec.experiment import TrainingSpec
    from lora_search.training import Engine, EngineSettings, lanes_of

    device = torch.device("cpu")
    base = random_base({**MINILM, **TINY} if tiny else MINILM, torch.float32, device)
    data = random_data(examples, base.model.config.vocab_size)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    settings = EngineSettings(device, dtype, lanes=lanes_of(device))
    engine = Engine(base, data, TrainingSpec(epochs=1, batch_size=16), settings)
    choices = [(RANKS[trial % len(RANKS)], TARGETS[trial % len(TARGETS)], layers) for trial in range(CELLS)]
    cells = cells_of(base, examples, choices)
    engine.train(cells, pack=0)
    before, start = os.times(), time.perf_counter()
    engine.train(cells, pack=0)
    seconds, after = time.perf_counter() - start, os.times()
    return {"seconds": seconds, "processor_seconds": sum(after[:4]) - sum(before[:4])}


def measured(checkout: Path, arguments: list[str]) -> dict[str, float]:
    """The same in a process of its own, with the engine of a checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, str(checkout), "--here", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path, help="a checkout of the older commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--layers", nargs="+", default=["all", "top-1/2"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["bf16", "fp32"])
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to try the code; nothing is written")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/pace.json")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    if chosen.here:
        print(json.dumps(measure_here(chosen.layers[0], chosen.precision[0], chosen.examples, chosen.tiny)))
        return
    record: dict[str, Any] = {
        "what": "an older engine against this one, the same pack of 8 cells",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": {who: _commit(folder) for who, folder in (("older", chosen.older), ("newer", ROOT))},
        "machine": _machine(),
        "examples": chosen.examples,
        "ranges": {},
    }
    for precision in chosen.precision:
        for layers in chosen.layers:
            size = ["--examples", str(chosen.examples), *(["--tiny"] if chosen.tiny else [])]
            arguments = ["--layers", layers, "--precision", precision, *size]
            rounds = [(measured(chosen.older, arguments), measured(ROOT, arguments)) for _ in range(chosen.rounds)]
            row: dict[str, Any] = {"older": [older for older, _ in rounds], "newer": [newer for _, newer in rounds]}
            for clock in ("seconds", "processor_seconds"):
                older, newer = ([each[clock] for each in row[who]] for who in ("older", "newer"))
                row[f"ratio_of_{clock}"] = statistics.median(older) / statistics.median(newer)
                row[f"ratio_of_least_{clock}"] = min(older) / min(newer)
            record["ranges"][f"{precision}, {layers}"] = row
            ratios = {name: round(value, 2) for name, value in row.items() if name.startswith("ratio")}
            print(precision, layers, ratios, "newer", min(row["newer"], key=lambda each: each["seconds"]), flush=True)
    if not chosen.tiny:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parent))
    from toy_models import machine

    return machine()


def _commit(folder: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
