"""Does the recommendation hold where nothing was selected? Studies on real data, judged by their hold-outs.

    python experiments/audits/holdout.py --data FOLDER [--seeds 3] [--datasets trec6 tweeteval_emotion]
        [--set KEY=VALUE] [--studies FOLDER] [--out FILE]

FOLDER has one folder per dataset, with a ``train.jsonl`` of texts and labels. One study (``holdout.toml``) is run per
dataset and seed; the seed draws the examples, the hold-out, the folds and the trials. The package scores the hold-out
once, by the recommended adapter, after the verdict. The audit then refits every adapter of the study, those too that
racing stopped, at the rate the study chose for it, at half and at twice that; what teaches nothing is begun anew, as
the package does. The recommended must give the package's score again, and is compared, example by example, with

- the best adapter of the study: the recommendation keeps its promise when its hold-out accuracy is at most the margin
  below. Where it is the best itself the difference is zero by construction; the summary counts those apart.
- the highest of all refits, each adapter at the best of its three rates: nothing that was stopped or passed over should
  be better by more than the margin. This flatters the highest, which is the luckiest of all refits on these examples.
- that adapter trained again: it and the recommended, each at its rate with six other draws of first weights and
  order. These trainings chose nothing, so what they differ by is the adapters' and not one training's luck.

What could have been recommended is the smallest adapter whose best refit is within the margin of the highest; the size
of the recommended against that is recorded. But for the adapters trained again one refit of either is compared, so a
difference has the noise of a single training beside that of the hold-out; the standard error is of the hold-out alone.

Results go to results/audits/holdout.json row by row. A finished (dataset, seed) is skipped and an interrupted study
goes on from its folder under --studies, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from numpy.typing import NDArray

from lora_search import load_experiment, run_study
from lora_search.spec import ADAPTER_FIELDS, AdapterSpec, Experiment, Nuisance
from lora_search.spec.facts import HOLDOUT
from lora_search.statistics.by_adapter import by_adapter
from lora_search.store.files import json_text, write_atomically
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellResult
from lora_search.study import Prepared, prepare
from lora_search.study.environment import hardware, versions
from lora_search.study.refit import ATTEMPTS, refit_cell
from lora_search.study.settings import settings_of
from lora_search.training import Cell, Engine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FACTORS = (1.0, 0.5, 2.0)
"""Of the rate the study chose."""
DRAWS = range(1, 7)
"""Of first weights and orders, beside the first."""
PACK = 12
"""Refits trained together."""


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Difference of two accuracies on the same examples, and its standard error.

    The copies of one text stand or fall together: the error is that of a mean over groups (the linearised variance of
    a ratio, Cochran 1977, equation 6.9), which with all groups different is s / sqrt(n) of the paired differences.

    Args:
        first, second: whether each example was predicted right, (n,).
        groups: of each example, (n,).
    """
    differences = first.astype(float) - second.astype(float)
    mean = float(differences.mean())
    _, group_of = np.unique(groups, return_inverse=True)
    residuals = np.bincount(group_of, weights=differences - mean)
    count = len(residuals)
    error = float(np.sqrt(count / (count - 1) * (residuals**2).sum())) / len(differences)
    return mean, error


def experiment_of(dataset: str, seed: int, data: Path, overrides: list[str]) -> Experiment:
    """The study of one dataset and seed."""
    filled = {
        "name": f"{dataset}-seed-{seed}",
        "seed": seed,
        "data.train": str((data / dataset / "train.jsonl").resolve()),
    }
    return load_experiment(
        HERE / "holdout.toml", [*overrides, *(f"{key}={json.dumps(value)}" for key, value in filled.items())]
    )


def shared_settings(data: Path, datasets: list[str], overrides: list[str]) -> dict[str, Any]:
    """What all studies share: the experiment without what is filled in, which has a folder of this machine in it."""
    settings = experiment_of(datasets[0], 0, data, overrides).model_dump(mode="json")
    for key in ("name", "seed"):
        del settings[key]
    del settings["data"]["train"]
    return settings


@dataclass(frozen=True)
class Wanted:
    """A refit to train: of the adapter that ``trial`` stands for, at so many times the rate the study chose, with the
    ``draw``-th first weights and order; 0 are those of an export."""

    trial: int
    factor: float = 1.0
    draw: int = 0


@dataclass(frozen=True, eq=False)
class Refitted:
    """An adapter at one rate, trained on all examples but the hold-out.

    Attributes:
        wanted: what it is. parameters: of the adapter. state: in the study. rate: of this training.
        trainings: until one taught something (see ``lora_search.study.refit``).
        right: whether each example of the hold-out is predicted right, in the hold-out's order.
    """

    wanted: Wanted
    parameters: int
    state: str
    rate: float
    trainings: int
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def compare(tables: StudyTables) -> dict[str, Any]:
    """The hold-out's word on a finished study."""
    verdict = tables.verdict()
    assert verdict is not None  # run_study has just written it
    kept, margin = HOLDOUT.of(tables.facts), verdict["margin"]
    prepared = prepare(tables.experiment)
    groups = prepared.data.groups[prepared.splits.holdout]
    refits = Refits(tables, prepared)
    every = refits.train([Wanted(trial, factor) for trial in refits.rows for factor in FACTORS])
    own = {one.wanted.trial: one for one in every if one.wanted == Wanted(one.wanted.trial)}
    recommended, best = (own[verdict[which]["trial"]] for which in ("recommended", "best"))
    tuned = best_of_each(every)
    highest = max(tuned, key=lambda one: one.accuracy)
    enough = [one for one in tuned if one.accuracy >= highest.accuracy - margin]
    smallest = min(enough, key=lambda one: one.parameters)
    pair = recommended.wanted, highest.wanted  # which may be one
    again = {wanted: refits.train([replace(wanted, draw=draw) for draw in DRAWS]) for wanted in dict.fromkeys(pair)}
    return {
        "examples": len(prepared.splits.development),
        "holdout_examples": len(groups),
        "recommended_holdout_accuracy": recommended.accuracy,
        # an undecided study keeps its hold-out
        "recorded_by_the_study": None if kept is None else kept.scores["accuracy"],
        "reproduced": None if kept is None else bool(np.isclose(kept.scores["accuracy"], recommended.accuracy)),
        "best_holdout_accuracy": best.accuracy,
        **against(recommended, best, margin, groups),
        "highest": told(highest) | against(recommended, highest, margin, groups),
        "trained_again": trained_again(*(again[wanted] for wanted in pair), margin),
        "smallest_within_margin_of_highest": told(smallest),
        "times_the_smallest": recommended.parameters / smallest.parameters,
        "refits": [told(one) for one in tuned],
    }


def best_of_each(refits: list[Refitted]) -> list[Refitted]:
    """The highest refit of every adapter."""
    best: dict[int, Refitted] = {}
    for one in refits:
        trial = one.wanted.trial
        best[trial] = max(best.get(trial, one), one, key=lambda refit: refit.accuracy)
    return list(best.values())


class Refits:
    """Trains adapters of a study on all examples but the hold-out.

    Attributes:
        rows: of the table of adapters, by the trial that stands for each.
    """

    def __init__(self, tables: StudyTables, prepared: Prepared) -> None:
        settings = settings_of(prepared, tables.facts)
        self.engine = Engine(prepared.base, prepared.data, tables.experiment.training, settings)
        self.prepared = prepared
        self.rows = {int(row["trial"]): row for row in by_adapter(tables).trials.to_dict("records")}
        self._trials = len(tables.trials)

    def train(self, wanted: Sequence[Wanted]) -> list[Refitted]:
        """Those that did not diverge. One that teaches nothing is begun anew, as the package does."""
        found: list[Refitted] = []
        left = list(wanted)
        for attempt in range(ATTEMPTS):
            cells = [(one, self._cell(one, attempt)) for one in left]
            cells.sort(key=self._depth)
            left = []
            for _, alike in groupby(cells, key=self._depth):
                while pack := list(islice(alike, PACK)):
                    trained = self.engine.train([cell for _, cell in pack], -1)
                    for (one, cell), result in zip(pack, trained, strict=True):
                        if result.stalled:
                            left.append(one)
                        elif result.result.state == "failed":
                            print(f"{one}: {result.result.failure}", flush=True)
                        else:
                            found.append(self._refitted(one, cell, result.result, attempt))
        return found

    def _cell(self, one: Wanted, attempt: int) -> Cell:
        row = self.rows[one.trial]
        adapter = AdapterSpec(**{name: row[name] for name in ADAPTER_FIELDS})
        nuisance = Nuisance(learning_rate=one.factor * float(row["learning_rate"]), dropout=float(row["dropout"]))
        cell = refit_cell(self.prepared, one.trial, adapter, nuisance, attempt)
        # in a pack no key occurs twice
        number = one.trial + FACTORS.index(one.factor) * self._trials
        return replace(cell, key=replace(cell.key, trial=number, repeat=one.draw))

    def _depth(self, pair: tuple[Wanted, Cell]) -> int:
        return self.prepared.depth(pair[1].adapter)

    def _refitted(self, one: Wanted, cell: Cell, result: CellResult, attempt: int) -> Refitted:
        row, predicted = self.rows[one.trial], result.probabilities.argmax(1)
        right = predicted == self.prepared.data.labels[result.examples]
        size, rate = int(row["adapter_parameters"]), cell.nuisance.learning_rate
        return Refitted(one, size, row["state"], rate, attempt + 1, right)


def trained_again(first: list[Refitted], second: list[Refitted], margin: float) -> dict[str, Any]:
    """How much better an adapter does in the mean over trainings than another, both with the same draws.

    The standard error is that of the draws: of the mean of their differences.
    """
    of_second = {one.wanted.draw: one.accuracy for one in second}
    pairs = [(one.accuracy, of_second[one.wanted.draw]) for one in first if one.wanted.draw in of_second]
    differences = np.array([one - other for one, other in pairs])
    return {
        "recommended": [one for one, _ in pairs],
        "highest": [other for _, other in pairs],
        "difference": float(differences.mean()),
        "standard_error": float(differences.std(ddof=1) / np.sqrt(len(differences))),
        "within_margin": bool(differences.mean() >= -margin),
    }


def told(one: Refitted) -> dict[str, Any]:
    return {
        "trial": one.wanted.trial,
        "state": one.state,
        "adapter_parameters": one.parameters,
        "learning_rate": one.rate,
        "trainings": one.trainings,
        "holdout_accuracy": one.accuracy,
    }


def against(first: Refitted, second: Refitted, margin: float, groups: NDArray[np.int64]) -> dict[str, Any]:
    """How much better one does on the hold-out than another, and whether it is within the margin of it."""
    difference, error = paired_difference(first.right, second.right, groups)
    return {"difference": difference, "standard_error": error, "within_margin": bool(difference >= -margin)}


def described(summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a trial of the verdict."""
    keys = ("trial", "adapter", "learning_rate", "adapter_parameters", "score_mean", "score_interval", "cells")
    return {key: summary[key] for key in keys}


def audit(dataset: str, experiment: Experiment, studies: Path) -> dict[str, Any]:
    """Run, or go on with, one study and compare its recommendation with its best on the hold-out."""
    start = time.perf_counter()
    tables = run_study(experiment, studies, progress=None)
    verdict = tables.verdict()
    assert verdict is not None  # run_study has just written it
    compared = compare(tables)
    cells = tables.cells
    return {
        "dataset": dataset,
        "seed": experiment.seed,
        "status": verdict["status"],
        "sentence": verdict["sentence"],
        "probability_not_worse": verdict["probability_not_worse"],
        "recommended": described(verdict["recommended"]),
        "best": described(verdict["best"]),
        "recommended_is_best": verdict["recommended"]["trial"] == verdict["best"]["trial"],
        **compared,
        "corrected_score": verdict["corrected_score"],
        "corrected_interval": verdict["corrected_interval"],
        "warnings": verdict["warnings"],
        "cells_trained": verdict["cells_trained"],
        "cells_skipped_by_racing": verdict["cells_skipped_by_racing"],
        # packs share their clock time equally, so this is the study's own, however often it was interrupted
        "training_seconds": float((cells["wall_seconds"] / cells["pack_cells"]).sum()),
        "seconds_of_last_run": time.perf_counter() - start,
        "precision": tables.facts["precision"],
        "commit": tables.environment["commit"],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All rows together; the comparison says something where the recommended trial is not the best itself."""
    smaller = [row for row in rows if not row["recommended_is_best"]]
    return {
        "studies": len(rows),
        "decided": sum(row["status"] == "decided" for row in rows),
        "within_margin": sum(row["within_margin"] for row in rows),
        "recommended_is_best": len(rows) - len(smaller),
        "within_margin_of_highest": sum(row["highest"]["within_margin"] for row in rows),
        "mean_difference_from_highest": float(np.mean([row["highest"]["difference"] for row in rows])),
        "within_margin_trained_again": sum(row["trained_again"]["within_margin"] for row in rows),
        "mean_difference_trained_again": float(np.mean([row["trained_again"]["difference"] for row in rows])),
        "median_times_the_smallest": float(np.median([row["times_the_smallest"] for row in rows])),
        "at_most_twice_the_smallest": sum(row["times_the_smallest"] <= 2 for row in rows),
        "smaller_than_best": {
            "studies": len(smaller),
            "within_margin": sum(row["within_margin"] for row in smaller),
            "mean_difference": float(np.mean([row["difference"] for row in smaller])) if smaller else None,
            "lowest_difference": min((row["difference"] for row in smaller), default=None),
            "mean_share_of_parameters": float(
                np.mean(
                    [row["recommended"]["adapter_parameters"] / row["best"]["adapter_parameters"] for row in smaller]
                )
            )
            if smaller
            else None,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of each dataset")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", default=["trec6", "tweeteval_emotion"])
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override a value of holdout.toml")
    parser.add_argument("--studies", type=Path, default=Path(tempfile.gettempdir()) / "lora_search-holdout-audit")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/holdout.json")
    options = parser.parse_args()
    settings = shared_settings(options.data, options.datasets, options.overrides)
    if settings["verdict"]["metric"] != "accuracy":
        parser.error("--set verdict.metric: must be accuracy, whose paired standard error is known")
    kept: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    if kept and kept["settings"] != settings:
        parser.error(f"--out: must be a file of the same settings, got {options.out}, which has others")
    rows: list[dict[str, Any]] = kept.get("studies", [])
    done = {(row["dataset"], row["seed"]) for row in rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed, dataset in product(range(options.seeds), options.datasets):
        if (dataset, seed) in done:
            continue
        experiment = experiment_of(dataset, seed, options.data, options.overrides)
        rows.append(audit(dataset, experiment, options.studies))
        content = {
            "what": "hold-out accuracy of the recommended adapter against the best of all, each at its best rate",
            "hardware": hardware(),
            "versions": versions(),
            "settings": settings,
            "summary": summary(rows),
            "studies": rows,
        }
        write_atomically(options.out, json_text(content))
        print(json.dumps(rows[-1], default=str), flush=True)
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
