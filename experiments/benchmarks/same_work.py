"""The loop people write against this project, on the same cells: how much faster, and is the score the same?

The naive loop (``naive_loop.py``) is Optuna + scikit-learn folds + ``get_peft_model`` + ``Trainer`` with its defaults +
``DataCollatorWithPadding``, one fold after another. Ours trains the same cells - same examples, epochs, batch size,
learning rate, rank - as the study would: packed, in micro-batches, from cached frozen layers. The two alternate
within one run, so a noisy machine slows both; what is recorded is the ratio of their medians, per layer range and for
a uniform mix of ranges. Where ours computes in bf16, the naive loop does too, a second time, under ``Trainer``'s
autocast; the ratio is against the faster of the two.

    python experiments/benchmarks/same_work.py            # writes results/benchmarks/same_work.json

Ours pays for its prefix cache inside the measured time; neither pays for loading the model. The naive model runs in
train mode, with the base's own dropout, as Trainer runs it; ours runs the frozen base in eval mode (see the README).
``--without-dropout`` switches that dropout off on the naive side too, to see whether anything else moves the scores;
its record is of scores, and goes to another file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from flops import Work, pack_flops
from naive_loop import naive, quiet

from lora_search.spec import AdapterSpec, Nuisance, load_experiment
from lora_search.spec.locations import locate
from lora_search.store.records import CellKey
from lora_search.study.environment import describe_environment, hardware, versions
from lora_search.study.preparation import Prepared, measured_dtype, prepare
from lora_search.training import Cell, Engine, EngineSettings, lanes_of

ROOT = Path(__file__).resolve().parents[2]
RANGES = ("all", "top-1/2", "top-1/3")
TRIALS = 8
PEERS = ("fp32", "bf16")
LEARNING_RATES = {"query+value": 5e-3, "attention": 5e-3, "all-linear": 2e-3}
"""With which MiniLM learns the film quotes in two epochs; both sides train with the same."""


def ours(prepared: Prepared, cells: list[Cell], dtype: torch.dtype) -> tuple[list[float], dict[str, float]]:
    """The same cells as the study trains them, from a cold prefix cache."""
    settings = EngineSettings(prepared.device, dtype, lanes=lanes_of(prepared.device))
    engine = Engine(prepared.base, prepared.data, prepared.experiment.training, settings)
    start = time.perf_counter()
    results = [trained.result for trained in engine.train(cells, pack=0)]
    seconds = time.perf_counter() - start
    depth = cells[0].depth(prepared.base.structure.layer_count)
    epochs = prepared.experiment.training.epochs
    work = Work(
        trained_tokens=sum(result.tokens for result in results),
        trained_rows=sum(result.train_examples * epochs for result in results),
        predicted_tokens=sum(int(prepared.data.lengths[cell.evaluate].sum()) for cell in cells),
        predicted_rows=sum(len(cell.evaluate) for cell in cells),
    )
    flops = pack_flops(engine, work, depth, cached_tokens=engine.forward.storage.tokens)
    return [result.scores["accuracy"] for result in results], {
        "tokens_per_second": (work.trained_tokens + work.predicted_tokens) / seconds,
        "layers": prepared.base.structure.layer_count - depth,
        "padding": engine.padded_tokens / engine.real_tokens - 1.0,
        "forward_flops": flops.forward,
        "input_gradient_flops": flops.input_gradient,
        "matrix_flops_per_second": flops.total / seconds,
    }


def product_limit(dtype: torch.dtype, rows: int = 1024, width: int = 384) -> float:
    """The machine's matrix-product rate at the model's shapes, FLOP/s: best of many (rows, w) x (w, 4w) products."""
    x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(4 * width, width, dtype=dtype)
    best = float("inf")
    for _ in range(60):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return 2.0 * rows * width * 4 * width / best


def cells_of(prepared: Prepared, layers: str, fold: int) -> list[Cell]:
    """A pack of trials on one fold: ranks and target sets as a study would ask for them."""
    ranks, targets = prepared.experiment.search.rank, prepared.experiment.search.targets
    return [
        prepared.cell(
            CellKey(trial, 0, fold),
            AdapterSpec(
                rank=ranks[trial % len(ranks)],
                alpha=2 * ranks[trial % len(ranks)],
                targets=targets[trial % len(targets)],
                layers=layers,
            ),
            Nuisance(learning_rate=LEARNING_RATES[targets[trial % len(targets)]]),
        )
        for trial in range(TRIALS)
    ]


def measure(rounds: int, overrides: list[str], naive_cells: int, dropout: bool) -> dict[str, Any]:
    experiment = load_experiment(ROOT / "experiments/quickstart.toml", ["training.epochs=2", *overrides])
    prepared = prepare(experiment)
    base = locate(experiment.model.base)
    dtype = measured_dtype(prepared)
    record: dict[str, Any] = {
        "commit": describe_environment(prepared)["commit"],
        "overrides": overrides,
        "rounds": rounds,
        "naive_cells": naive_cells,
        "naive_dropout": dropout,
        "ranges": {},
    }
    limits = []
    for layers in RANGES:
        rows = []
        for fold in range(rounds):
            cells = cells_of(prepared, layers, fold)
            spread = [cells[i] for i in np.linspace(0, TRIALS - 1, naive_cells).round().astype(int)]
            peers = {}
            for peer in PEERS[: 1 if dtype == torch.float32 else 2]:
                start = time.perf_counter()
                naive_scores = naive(prepared, spread, base, dropout=dropout, bf16=peer == "bf16")
                peers[peer] = (time.perf_counter() - start) / len(spread), naive_scores
            naive_seconds, naive_scores = min(peers.values(), key=lambda measured: measured[0])
            start = time.perf_counter()
            scores, facts = ours(prepared, cells, dtype)
            our_seconds = (time.perf_counter() - start) / len(cells)
            limits.append(product_limit(dtype))
            shared = [scores[cells.index(cell)] for cell in spread]
            rows.append(
                {
                    "naive_seconds_per_cell": naive_seconds,
                    **{f"naive_{peer}_seconds_per_cell": seconds for peer, (seconds, _) in peers.items()},
                    "our_seconds_per_cell": our_seconds,
                    "ratio": naive_seconds / our_seconds,
                    "naive_accuracy": naive_scores,
                    "our_accuracy": shared,
                    **facts,
                }
            )
            facts = {key: value for key, value in rows[-1].items() if not isinstance(value, list)}
            print(layers, fold, facts, flush=True)
        record["ranges"][layers] = {
            "ratio": statistics.median(row["ratio"] for row in rows),
            "rounds": rows,
        }
    _add_shares(record, max(limits))
    every = [row for part in record["ranges"].values() for row in part["rounds"]]
    medians = {
        who: [
            statistics.median(row[f"{who}_seconds_per_cell"] for row in part["rounds"])
            for part in record["ranges"].values()
        ]
        for who in ("naive", "our")
    }
    record["mix_ratio"] = sum(medians["naive"]) / sum(medians["our"])
    naive_mean = float(np.mean([score for row in every for score in row["naive_accuracy"]]))
    our_mean = float(np.mean([score for row in every for score in row["our_accuracy"]]))
    gaps = np.array([row["our_accuracy"] for row in every]) - np.array([row["naive_accuracy"] for row in every])
    record["mean_accuracy"] = {
        "naive": naive_mean,
        "ours": our_mean,
        "difference": our_mean - naive_mean,
        "standard_error": float(gaps.std(ddof=1) / np.sqrt(gaps.size)),
    }
    record["product_limits_flops"] = limits
    record["precision"] = str(dtype).removeprefix("torch.")
    record["examples"] = len(prepared.splits.development)
    return record


def _add_shares(record: dict[str, Any], limit: float) -> None:
    """What part of the product limit ours reached: of the largest measured in the run, since a busy moment lowers a
    measurement and nothing raises one."""
    record["product_limit_flops"] = limit
    for part in record["ranges"].values():
        for row in part["rounds"]:
            row["share_of_product_limit"] = row["matrix_flops_per_second"] / limit
        part["share_of_product_limit"] = statistics.median(row["share_of_product_limit"] for row in part["rounds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--naive-cells", type=int, default=3, help="cells of each pack the naive loop trains too")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--without-dropout", action="store_true", help="of the naive loop's base, as ours runs")
    parser.add_argument("--out", type=Path, help="same_work.json in results/benchmarks, or same_scores.json")
    chosen = parser.parse_args()
    name = "same_scores.json" if chosen.without_dropout else "same_work.json"
    out: Path = chosen.out or ROOT / "results/benchmarks" / name
    quiet()
    record = {
        "what": "naive loop against lora_search on the same cells",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        **measure(chosen.rounds, chosen.overrides, chosen.naive_cells, not chosen.without_dropout),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("ranges", "versions")}, indent=2))


if __name__ == "__main__":
    main()
