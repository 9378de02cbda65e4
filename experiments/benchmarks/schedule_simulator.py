"""How many workers does a study have work for? Its recorded trainings, put on 1 to 1,024 workers by the real scheduler.

    python experiments/benchmarks/schedule_simulator.py [STUDY] [--wider 1 8 64] [--packing recorded|gpu]
        [--out results/benchmarks/schedule_simulator.json]

A study decides in steps: what comes next depends on the scores of all that was asked for together. So no more workers
have work than a step has trainings, and the last pack of each step is waited for. Here a recorded study is taken apart
into its steps (a trial that comes again begins the next one), every step is packed by ``packs_of`` for so many workers,
and the packs are dealt to whoever is free, the longest first. ``--wider`` does the same for a study that asks for so
many times as many trainings in each step, as one over a larger space does.

What a pack takes: with ``recorded`` a line through the recorded packs, seconds = a + b x layers computed, with as many
seconds a for every worker; with ``gpu`` the first recorded packs' seconds per layer, divided by how many times as fast
a pack of so many cells was on a GPU (results/benchmarks/gpu.json, ``bert-base``). The driver records one training after
another, which is measured here (``rows_per_second``), and judges after each step, for which ``--judging`` seconds are
counted. To reach workers takes no time here, and none of them dies.

For every number of workers: seconds in all, times as fast as one, the share of the workers' time that is training, and
the share of the whole in which the driver was busy; and ``by_cut``, seconds in all where the work of a step is cut into
so many packs for each worker, by which ``schedule`` chooses. ``saturates_at`` is the first number from which twice as
many workers gain less than a tenth.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from lora_search.spec import AdapterSpec, Nuisance, layer_indices, load_experiment
from lora_search.store.files import json_text, write_atomically
from lora_search.store.ledger import Ledger
from lora_search.store.opening import quiet_optuna
from lora_search.store.records import CellKey, CellResult, TrialRecord
from lora_search.study.environment import hardware, versions
from lora_search.study.schedule import packs_of, shares_for

ROOT = Path(__file__).resolve().parents[2]
WORKERS = tuple(2**power for power in range(11))
CUTS = (0.5, 1.0, 2.0, 4.0)
"""Packs for each worker into which the work of a step may be cut."""
_MEASURED_ROWS = 200

PackSeconds = Callable[[int, float], float]
"""Of a pack of so many cells that compute so many layers in all."""


@dataclass(frozen=True)
class Recorded:
    """A study, as far as it is simulated.

    Attributes:
        records: its trials, by number.
        layer_count: of its model.
        steps: the cells of each step, in order.
        packs: cells, layers computed and seconds of every recorded pack.
    """

    records: Mapping[int, TrialRecord]
    layer_count: int
    steps: Sequence[Sequence[CellKey]]
    packs: Sequence[tuple[int, float, float]]

    @property
    def prepared(self) -> Any:
        """As much of it as the scheduler asks for."""

        def depth(adapter: AdapterSpec) -> int:
            return min(layer_indices(adapter.layers, self.layer_count))

        return SimpleNamespace(
            depth=depth, base=SimpleNamespace(structure=SimpleNamespace(layer_count=self.layer_count))
        )

    def layers(self, key: CellKey) -> float:
        """That a training computes."""
        return float(self.layer_count - self.prepared.depth(self.records[key.trial].adapter))

    def wider(self, times: int) -> Recorded:
        """With so many trials in place of each."""
        most = max(self.records) + 1
        records = {
            trial + copy * most: replace(record, trial=trial + copy * most)
            for trial, record in self.records.items()
            for copy in range(times)
        }
        steps = [
            [CellKey(key.trial + copy * most, key.repeat, key.fold) for copy in range(times) for key in step]
            for step in self.steps
        ]
        return replace(self, records=records, steps=steps)


def read_recorded(folder: Path) -> Recorded:
    """Of a study's tables."""
    trials, cells = pd.read_csv(folder / "trials.csv"), pd.read_csv(folder / "cells.csv")
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    runs = environment if isinstance(environment, list) else [environment]
    records = {
        int(row.trial): TrialRecord(
            int(row.trial),
            AdapterSpec(
                rank=int(row.rank), alpha=float(row.alpha), targets=row.targets, layers=row.layers, scaling=row.scaling
            ),
            Nuisance(learning_rate=float(row.learning_rate), dropout=float(row.dropout)),
            int(row.adapter_parameters),
            int(row.head_parameters),
            "sampler",
        )
        for row in trials.itertuples()
    }
    found = Recorded(records, int(runs[0]["model"]["layers"]), (), ())
    packs, steps = [], steps_of(cells)
    for _, pack in cells.groupby("pack"):
        layers = sum(found.layers(CellKey(int(row.trial), 0, 0)) for row in pack.itertuples())
        packs.append((len(pack), layers, float(pack["wall_seconds"].iloc[0])))
    return replace(found, steps=steps, packs=packs)


def steps_of(cells: pd.DataFrame) -> list[list[CellKey]]:
    """The cells of each step, from the packs in their order: a trial that comes again begins the next one."""
    steps: list[list[CellKey]] = []
    seen: set[int] = set()
    for _, pack in cells.sort_values("pack").groupby("pack"):
        keys = [CellKey(int(row.trial), int(row.repeat), int(row.fold)) for row in pack.itertuples()]
        trials = {key.trial for key in keys}
        if not steps or seen & trials:
            steps.append([])
            seen = set()
        steps[-1].extend(keys)
        seen |= trials
    return steps


def line_through(packs: Sequence[tuple[int, float, float]]) -> PackSeconds:
    """seconds = a + b x layers, by least squares, neither below zero."""
    layers, seconds = np.array([pack[1] for pack in packs]), np.array([pack[2] for pack in packs])
    slope = max(0.0, float(np.polyfit(layers, seconds, 1)[0])) if len(set(layers.tolist())) > 1 else 0.0
    start = max(0.0, float((seconds - slope * layers).mean()))
    if start == 0.0:
        slope = float(seconds.sum() / layers.sum())
    return lambda cells, layers: start + slope * layers


def as_on_gpu(packs: Sequence[tuple[int, float, float]], measured: Sequence[tuple[int, float]]) -> PackSeconds:
    """By how many times as fast packs are that are larger.

    Args:
        packs: recorded.
        measured: cells of a pack, and cells per hour.
    """
    per_layer = sum(pack[2] for pack in packs) / sum(pack[1] for pack in packs)
    sizes, rates = [size for size, _ in measured], [rate / measured[0][1] for _, rate in measured]
    return lambda cells, layers: layers * per_layer / float(np.interp(cells, sizes, rates))


def simulate(
    study: Recorded, workers: int, seconds_of: PackSeconds, shares: int, *, row_seconds: float, judging: float
) -> dict[str, float]:
    """Seconds in all, and of what.

    Args:
        study: it. workers: at the same time.
        seconds_of: a pack.
        shares: into which the work of a step is cut.
        row_seconds, judging: of the driver, for a training and for a step.
    """
    clock = training = driving = 0.0
    for step in study.steps:
        packs = packs_of(study.prepared, study.records, step, shares)
        free = [clock] * min(workers, len(packs))
        ended: list[tuple[float, int]] = []
        for pack in packs:
            seconds = seconds_of(len(pack), sum(study.layers(key) for key in pack))
            training += seconds
            end = heapq.heappop(free) + seconds
            heapq.heappush(free, end)
            ended.append((end, len(pack)))
        recorded = clock
        for end, cells in sorted(ended):
            recorded = max(recorded, end) + cells * row_seconds
        driving += len(step) * row_seconds + judging
        clock = recorded + judging
    return {"seconds": clock, "training": training / (workers * clock), "driver": driving / clock}


def row_seconds() -> float:
    """Of recording one training, by trying: its predictions in a file, its row in the database."""
    experiment = load_experiment(ROOT / "experiments/quickstart.toml")
    adapter = AdapterSpec(rank=1, alpha=1.0, targets="query+value")
    examples = np.arange(240)
    with quiet_optuna(), tempfile.TemporaryDirectory() as folder, Ledger.open(folder, experiment, {}) as ledger:
        ledger.add_trial(TrialRecord(0, adapter, Nuisance(learning_rate=1e-3), 1, 1, "sampler"))
        start = time.perf_counter()
        for fold in range(_MEASURED_ROWS):
            ledger.add_cell(
                CellResult(
                    key=CellKey(0, 0, fold),
                    state="complete",
                    scores={"accuracy": 0.5},
                    train_loss=0.1,
                    examples=examples,
                    probabilities=np.full((240, 2), 0.5, dtype=np.float32),
                    train_examples=960,
                    steps=1,
                    tokens=1,
                    seconds=1.0,
                    wall_seconds=1.0,
                    pack=fold,
                    pack_cells=1,
                )
            )
        return (time.perf_counter() - start) / _MEASURED_ROWS


def saturation(rows: Sequence[Mapping[str, float]]) -> int:
    """The first number of workers from which twice as many gain less than a tenth."""
    for one, more in itertools.pairwise(rows):
        if more["times_as_fast"] < 1.1 * one["times_as_fast"]:
            return int(one["workers"])
    return int(rows[-1]["workers"])


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Times as fast against workers, a line for each width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for study in found:
        rows = study["workers"]
        label = f"{study['cells']:,} trainings in {study['steps']} steps"
        ax.plot([row["workers"] for row in rows], [row["times_as_fast"] for row in rows], marker="o", label=label)
    ax.plot(WORKERS, WORKERS, color="0.7", linestyle=":", label="as many as there are workers")
    ax.set(xscale="log", yscale="log", xlabel="workers", ylabel="times as fast as one")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=ROOT / "results/recorded/quickstart")
    parser.add_argument("--wider", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--packing", choices=("recorded", "gpu"), default="recorded")
    parser.add_argument("--judging", type=float, default=0.3, help="seconds of the driver after each step")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/schedule_simulator.json")
    arguments = parser.parse_args()
    recorded = read_recorded(arguments.study)
    seconds_of = line_through(recorded.packs)
    if arguments.packing == "gpu":
        shapes = json.loads((ROOT / "results/benchmarks/gpu.json").read_text(encoding="utf-8"))["shapes"]
        measured = [(pack["cells"], pack["cells_per_hour"]) for pack in shapes["bert-base"]["packs"]]
        seconds_of = as_on_gpu(recorded.packs, measured)
    device = "cuda" if arguments.packing == "gpu" else "cpu"
    each = row_seconds()
    found = []
    for times in arguments.wider:
        study, rows = recorded.wider(times), []
        for workers in WORKERS:
            driver = {"row_seconds": each, "judging": arguments.judging}
            by_cut = {
                cut: simulate(study, workers, seconds_of, 1 if workers == 1 else max(2, round(workers * cut)), **driver)
                for cut in CUTS
            }
            row = simulate(study, workers, seconds_of, shares_for(workers, device), **driver)
            cut_seconds = {f"{cut:g}": of_cut["seconds"] for cut, of_cut in by_cut.items()}
            first = rows[0]["seconds"] if rows else row["seconds"]
            rows.append({"workers": workers, "times_as_fast": first / row["seconds"], **row, "by_cut": cut_seconds})
        cells = sum(len(step) for step in study.steps)
        widest = max(len(step) for step in study.steps)
        found.append(
            {
                "wider": times,
                "cells": cells,
                "steps": len(study.steps),
                "widest_step": widest,
                "saturates_at": saturation(rows),
                "workers": rows,
            }
        )
        print(f"{cells} trainings, at most {widest} in a step: saturates at {found[-1]['saturates_at']} workers")
        for row in rows:
            print("  " + "  ".join(f"{name} {row[name]:.4g}" for name in row if name != "by_cut"))
    record = {
        "what": "a recorded study's trainings on 1 to 1,024 workers, simulated",
        "study": arguments.study.name,
        "packing": arguments.packing,
        "judging_seconds": arguments.judging,
        "rows_per_second": 1 / each,
        "studies": found,
        "hardware": hardware(),
        "versions": versions(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, json_text(record))
    draw(found, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
