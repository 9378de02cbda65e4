"""On a GPU: a plain PEFT loop against packs of 1 to 64 cells, for BERT-base and a Llama of 1B parameters.

    python experiments/benchmarks/gpu.py                  # writes results/benchmarks/gpu.json
    python experiments/benchmarks/gpu.py --device cpu --tiny    # the same code on toy shapes; nothing is written

Weights are random and so are the tokens, in lengths as short texts have them: what is measured is time and memory,
not scores. The plain loop is ``get_peft_model`` + AdamW + linear schedule + clipping over batches padded to their
longest text, the base in the same precision, cell after cell. Both train the same cells and predict the same
examples; times are between CUDA events, after a warm-up. Memory is the most that tensors held.

The plain loop is timed three times: as it comes, where cuDNN's attention makes a plan for every shape of batch; again,
with these plans made; and with attention that makes none, as ours has it. Ratios are to the fastest of the three.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from flops import Flops, Work, pack_flops, product_flops
from peft import LoraConfig, get_peft_model
from toy_models import TINY, cells_of, random_base, random_data
from transformers import get_linear_schedule_with_warmup

from lora_search.data import EncodedExamples
from lora_search.models import FrozenBase, peft_targets
from lora_search.spec.experiment import TrainingSpec
from lora_search.study.environment import hardware, versions
from lora_search.training import Cell, Engine, EngineSettings
from lora_search.training.attention import attention_without_plans

ROOT = Path(__file__).resolve().parents[2]
SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert"},
    "llama-1b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
PACKS = (1, 2, 4, 8, 16, 32, 64)
RANK = 8


def cells(base: FrozenBase, examples: int, count: int) -> list[Cell]:
    return cells_of(base, examples, [(RANK, "all-linear", "all")] * count)


def padded(data: EncodedExamples, examples: np.ndarray, device: torch.device) -> dict[str, torch.Tensor]:
    """What a padding collator makes of some examples."""
    rows = [torch.from_numpy(data.input_ids[int(example)]) for example in examples]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = torch.from_numpy(data.labels[examples])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def plain(base: FrozenBase, data: EncodedExamples, cell: Cell, training: TrainingSpec, device: torch.device) -> None:
    """One cell as a plain loop trains it and predicts with it."""
    targets = peft_targets(base.structure, cell.modules)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=cell.adapter.rank,
        lora_alpha=cell.adapter.alpha,
        target_modules=targets.target_modules,
        layers_to_transform=targets.layers_to_transform,
    )
    model = get_peft_model(copy.deepcopy(base.model), config).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=cell.nuisance.learning_rate, weight_decay=0.0)
    size = training.batch_size
    steps = -(-len(cell.train) // size) * training.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, int(steps * training.warmup_ratio), steps)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=base.model.dtype == torch.bfloat16)
    for epoch in range(training.epochs):
        order = np.random.default_rng(epoch).permutation(cell.train)
        for start in range(0, len(order), size):
            with precision:
                loss = model(**padded(data, order[start : start + size], device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad(), precision:
        for start in range(0, len(cell.evaluate), 4 * size):
            model(**padded(data, cell.evaluate[start : start + 4 * size], device)).logits.softmax(-1).cpu()


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Seconds of ``work``, and on a GPU the most bytes tensors held meanwhile."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start, 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    work()
    end_event.record()
    torch.cuda.synchronize(device)
    return start_event.elapsed_time(end_event) / 1000, torch.cuda.max_memory_allocated(device)


def product_limit(dtype: torch.dtype, device: torch.device, width: int) -> float:
    """FLOP/s of a matrix product at its best: (8192 or 256 on a CPU, w) x (w, 4 w), the best of many."""
    rows = 8192 if device.type == "cuda" else 256
    x, weight = (torch.randn(size, width, dtype=dtype, device=device) for size in (rows, 4 * width))
    best = min(timed(lambda: torch.nn.functional.linear(x, weight), device)[0] for _ in range(60))
    return 2.0 * rows * width * 4 * width / best


def work_of(data: EncodedExamples, cells: list[Cell], epochs: int) -> Work:
    return Work(
        trained_tokens=sum(int(data.lengths[cell.train].sum()) for cell in cells) * epochs,
        trained_rows=sum(len(cell.train) for cell in cells) * epochs,
        predicted_tokens=sum(int(data.lengths[cell.evaluate].sum()) for cell in cells),
        predicted_rows=sum(len(cell.evaluate) for cell in cells),
    )


def facts(cells: list[Cell], work: Work, flops: Flops, limit: float, measured: tuple[float, int]) -> dict[str, Any]:
    seconds, peak = measured
    return {
        "cells": len(cells),
        "cells_per_hour": 3600 * len(cells) / seconds,
        "tokens_per_second": (work.trained_tokens + work.predicted_tokens) / seconds,
        "peak_bytes": peak,
        "forward_flops": flops.forward,
        "input_gradient_flops": flops.input_gradient,
        "share_of_product_limit": flops.total / seconds / limit,
    }


def measure(
    shape: dict[str, Any], packs: tuple[int, ...], examples: int, device: torch.device, budget: int | None
) -> Any:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = random_base(shape, dtype, device)
    training = TrainingSpec(epochs=1, batch_size=16)
    data = random_data(examples, base.model.config.vocab_size)
    limit = product_limit(dtype, device, base.model.config.hidden_size)
    few = cells(base, min(examples, 40), 1)
    engine = Engine(base, data, training, EngineSettings(device, dtype, token_budget=budget))
    record: dict[str, Any] = {"product_limit_flops": limit, "packs": []}
    plain(base, data, few[0], training, device)
    one = cells(base, examples, 1)

    def loop() -> None:
        plain(base, data, one[0], training, device)

    runs = {"as it comes": timed(loop, device), "again": timed(loop, device)}
    with attention_without_plans(device):
        loop()
        runs["attention without plans"] = timed(loop, device)
    engine.train(few, pack=0)  # which fills the cache of states, after the plain loop's memory was measured
    work = work_of(data, one, training.epochs)
    flops = product_flops(base.structure.linear_modules, work, first=engine.forward.prefix.kept_modules(0))
    record["plain_loop"] = {name: facts(one, work, flops, limit, measured) for name, measured in runs.items()}
    print("plain loop", record["plain_loop"], flush=True)
    fastest = max(row["cells_per_hour"] for row in record["plain_loop"].values())
    for count in packs:
        pack = cells(base, examples, count)
        measured = timed(lambda pack=pack: engine.train(pack, pack=0), device)  # type: ignore[misc]
        work = work_of(data, pack, training.epochs)
        row = facts(pack, work, pack_flops(engine, work, 0, cached_tokens=0), limit, measured)
        row["ratio"] = row["cells_per_hour"] / fastest
        row["token_budget"], row["checkpointing"] = engine.memory.token_budget, engine.memory.checkpointing
        record["packs"].append(row)
        print("pack", row, flush=True)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy shapes and packs, to try the code; nothing is written")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--packs", nargs="+", type=int, default=list(PACKS), help="cells of each pack")
    parser.add_argument("--token-budget", type=int, help="instead of what the engine finds")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/gpu.json")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py needs a CUDA GPU, and this machine has none that torch can use", file=sys.stderr)
        return 2
    if chosen.device == "cpu" and not chosen.tiny:
        parser.error("--device cpu is for trying the code: it goes with --tiny")
    warnings.filterwarnings("ignore")
    device = torch.device(chosen.device)
    packs, examples = ((1, 2), 60) if chosen.tiny else (tuple(chosen.packs), chosen.examples)
    record: dict[str, Any] = {
        "what": "a plain PEFT loop against packs, on a GPU, random weights and tokens",
        "hardware": hardware(),
        "versions": versions(),
        "rank": RANK,
        "shapes": {},
    }
    if not chosen.tiny and chosen.out.exists():  # another shape's run on this machine stays
        before = json.loads(chosen.out.read_text(encoding="utf-8"))
        if all(before[key] == record[key] for key in ("hardware", "versions", "rank")):
            record["shapes"] = before["shapes"]
    for name in chosen.shapes:
        print(name, flush=True)
        shape = SHAPES[name] | (TINY if chosen.tiny else {})
        record["shapes"][name] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "examples": examples,
            **measure(shape, packs, examples, device, chosen.token_budget),
        }
        if not chosen.tiny:  # after each shape: a fault in the second leaves the first
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
