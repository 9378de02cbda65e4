"""Would trainings that a study ends halfway, because they teach nothing, have learned after all?

    python experiments/audits/stalling.py [--folds 2] [--set KEY=VALUE]... [--only-analyse] [--out FILE]

Every adapter of the quick start's space is trained to the end at seven rates from far too small to far too large, on
some of its folds. The rule of ``lora_search/training/stalling.py`` is applied to the losses of every step afterwards,
and what each training came to in the end says whether it was right: *wrong* is a training it would have ended that
ends up more than the margin above the majority class.

The trainings go to FILE; ``--only-analyse`` trains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from lora_search import load_experiment
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey
from lora_search.study.environment import hardware, versions
from lora_search.study.preparation import Prepared, prepare
from lora_search.study.settings import settings_of
from lora_search.training import Cell, Engine, Step
from lora_search.training.batches import batch_order, step_count
from lora_search.training.stalling import CHECKED_AT, has_stalled

ROOT = Path(__file__).resolve().parents[2]
RATES = (1e-5, 1e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)


def all_cells(prepared: Prepared, folds: int) -> dict[tuple[int, str], list[Cell]]:
    """Every adapter at every rate, by fold and layers: the packs."""
    search = prepared.experiment.search
    packs: dict[tuple[int, str], list[Cell]] = defaultdict(list)
    trial = 0
    for layers in search.layers:
        for targets in search.targets:
            for rank in search.rank:
                adapter = AdapterSpec(rank=rank, alpha=2 * rank, targets=targets, layers=layers)
                for rate in RATES:
                    for fold in range(folds):
                        key = CellKey(trial, 0, fold)
                        packs[fold, layers].append(prepared.cell(key, adapter, Nuisance(learning_rate=rate)))
                    trial += 1
    return packs


def trained(prepared: Prepared, folds: int) -> list[dict[str, Any]]:
    """A row per training: what it gained over knowing nothing at every step, and what it came to."""
    training = prepared.experiment.training
    engine = Engine(prepared.base, prepared.data, training, settings_of(prepared, {}))
    rows = []
    for (fold, layers), cells in all_cells(prepared, folds).items():
        losses: dict[CellKey, list[float]] = defaultdict(list)

        def listen(step: Step, losses: dict[CellKey, list[float]] = losses) -> None:
            for key, loss in step.losses.items():
                losses[key].append(loss)

        results = engine.train(cells, 0, listen)
        for cell, one in zip(cells, results, strict=True):
            nothing = engine.objective.losses_of_nothing(cell.train)
            order = batch_order(cell.train, training.batch_size, training.epochs, cell.order_key)
            batches = [float(nothing[batch].mean()) for batch in order]
            rows.append(
                {
                    "rank": cell.adapter.rank,
                    "layers": layers,
                    "learning_rate": cell.nuisance.learning_rate,
                    "fold": fold,
                    "steps": step_count(len(cell.train), training.batch_size, training.epochs),
                    "failed": one.result.failure is not None,
                    "accuracy": one.result.scores.get("accuracy"),
                    "nothing": float(np.mean(batches)),
                    "gains": [round(a - b, 5) for a, b in zip(batches, losses[cell.key], strict=False)],
                }
            )
        print(f"fold {fold}, {layers}: {len(cells)} trainings", flush=True)
    return rows


def figures(rows: Sequence[dict[str, Any]], majority: float, margin: float) -> dict[str, Any]:
    """What the rule does to these trainings."""
    finished = [row for row in rows if not row["failed"]]
    ended, wrong, saved = [], [], 0
    for row in finished:
        for share in CHECKED_AT:
            taken = int(share * row["steps"])
            if has_stalled(row["gains"][:taken], row["nothing"]):
                ended.append(row)
                saved += row["steps"] - taken
                if row["accuracy"] > majority + margin:
                    wrong.append({key: row[key] for key in ("rank", "layers", "learning_rate", "fold", "accuracy")})
                break
    stuck = [row for row in finished if row["accuracy"] <= majority + margin]
    return {
        "trainings": len(rows),
        "diverged": len(rows) - len(finished),
        "at_the_majority": len(stuck),
        "ended": len(ended),
        "ended_wrongly": wrong,
        "steps_saved": saved / sum(row["steps"] for row in rows),
        "found_of_those_at_the_majority": sum(row in ended for row in stuck) / max(1, len(stuck)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--only-analyse", action="store_true", help="train nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/stalling.json")
    options = parser.parse_args()
    experiment = load_experiment(ROOT / "experiments/quickstart.toml", overrides=options.overrides)
    if options.only_analyse:
        record = json.loads(options.out.read_text(encoding="utf-8"))
    else:
        prepared = prepare(experiment)
        counts = np.bincount(prepared.data.labels)
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
            "overrides": options.overrides,
            "majority": float(counts.max() / counts.sum()),
            "trainings": trained(prepared, options.folds),
        }
    record["figures"] = figures(record["trainings"], record["majority"], experiment.verdict.margin)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(json.dumps(record["figures"], indent=2))


if __name__ == "__main__":
    main()
