"""What a training step is made of, on this machine: which operations take how much of the time.

    python experiments/benchmarks/anatomy.py                 # writes results/benchmarks/anatomy.json
    python experiments/benchmarks/anatomy.py --tiny          # the same code on a toy shape; nothing is written

A model of MiniLM's shape with random weights trains a pack on random short texts, in one process, in every precision
the device has, for a range of layers; PyTorch's profiler says what each operation took itself. The rest of the wall
clock is the interpreter, the profiler's own part included; ``seconds`` is a run without it. On a GPU operations run
behind the interpreter: there times are those of its kernels, and the rest is what it waited.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent))  # loaded by path, as the tests do, it still has its neighbour
from toy_models import MINILM, TINY, pack_of, random_base, random_data

from lora_search.spec.experiment import TrainingSpec
from lora_search.study.environment import hardware, versions
from lora_search.training import Engine, EngineSettings

ROOT = Path(__file__).resolve().parents[2]
RANGES = ("all", "top-1/2", "top-1/3")

KINDS = {
    "activations": ("gelu", "silu", "tanh", "relu"),
    "norms": ("layer_norm", "rms_norm", "rsqrt", "var", "mean"),
    "attention": ("softmax", "scaled_dot_product", "attention", "fmha", "flash"),
    "copies": ("copy", "clone", "contiguous", "cat", "index", "empty", "zeros", "fill", "gather", "Memcpy", "Memset"),
    "elementwise": ("add", "mul", "sub", "div", "sqrt", "lerp", "sum", "where", "clamp", "pow", "neg", "elementwise"),
}


def kind_of(name: str, shapes: list[Any], slots: int) -> str:
    """What an operation is for. Attention multiplies a matrix per row and head, adapters one per slot: far fewer."""
    if "bmm" in name:
        operand = next((shape for shape in shapes if len(shape) == 3), (0,))
        return "adapters' products" if operand[0] <= slots else "attention"
    if any(part in name for part in ("addmm", "::mm", "linear", "gemm", "cutlass", "nvjet", "mkldnn")):
        return "frozen products"
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "others")


def anatomy(engine: Engine, cells: list[Any], device: torch.device) -> dict[str, Any]:
    """Shares of the time by kind, and the operations that take most."""
    engine.train(cells, pack=0)  # fills the cache of states and warms up
    start = time.perf_counter()
    tokens = sum(trained.result.tokens for trained in engine.train(cells, pack=0))
    seconds = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    start = time.perf_counter()
    with profile(activities=activities, record_shapes=True) as profiler:
        engine.train(cells, pack=0)
    profiled = time.perf_counter() - start
    kinds: dict[str, float] = defaultdict(float)
    operations: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    on_gpu = device.type == "cuda"
    for event in profiler.key_averages(group_by_input_shape=True):
        if (event.device_type == DeviceType.CUDA) != on_gpu:
            continue
        spent = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        kinds[kind_of(event.key, event.input_shapes or [], len(cells))] += spent
        operations[event.key][0] += spent
        operations[event.key][1] += event.count
    kinds["interpreter" if not on_gpu else "waiting"] = max(0.0, profiled - sum(kinds.values()))
    most = sorted(operations.items(), key=lambda item: -item[1][0])[:15]
    return {
        "cells": len(cells),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "shares": {kind: spent / profiled for kind, spent in sorted(kinds.items(), key=lambda item: -item[1])},
        "operations": [
            {"name": name[:60], "share": spent / profiled, "calls": int(calls), "microseconds": 1e6 * spent / calls}
            for name, (spent, calls) in most
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to try the code; nothing is written")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--cells", type=int, default=8, help="how many are trained together")
    parser.add_argument("--bert-base", action="store_true", help="its shape instead of MiniLM's")
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append", help="only these")
    parser.add_argument("--layers", action="append", help="only these ranges")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/anatomy.json")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    shape = {"model_type": "bert"} if chosen.bert_base else MINILM
    base = random_base({**shape, **TINY} if chosen.tiny else shape, torch.float32, device)
    examples = 40 if chosen.tiny else chosen.examples
    data = random_data(examples, base.model.config.vocab_size)
    record: dict[str, Any] = {
        "what": "what a training step is made of, one process",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "examples": examples,
        "anatomies": {},
    }
    for precision in chosen.precision or ("fp32", "bf16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        engine = Engine(base, data, TrainingSpec(epochs=1, batch_size=16), EngineSettings(device, dtype))
        for layers in chosen.layers or RANGES:
            found = anatomy(engine, pack_of(base, examples, chosen.cells, layers), device)
            record["anatomies"][f"{precision}, {layers}"] = found
            print(precision, layers, json.dumps(found["shares"]), f"{found['seconds']:.2f} s", flush=True)
            for row in found["operations"]:
                line = f"{row['share']:7.1%} {row['calls']:7d} x {row['microseconds']:8.1f} us"
                print(f"  {line}  {row['name']}", flush=True)
    if not chosen.tiny:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
