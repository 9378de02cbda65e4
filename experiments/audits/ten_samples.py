"""Is a comparison as uncertain as it says? Three adapters on ten disjoint samples of one dataset, trained in full.

    python experiments/audits/ten_samples.py [--samples 10] [--only-analyse] [--set KEY=VALUE]... [--out FOLDER]

The quick start's data has 12,808 quotes that carry an opinion. Its films are dealt at random to ten samples, of which
each keeps 1,200 quotes: the samples share neither quotes nor films. On each, three adapters of the quick start's
model are trained on five folds (rank 1 on the top third, ranks 4 and 16 on the top half, each at a rate that suits it),
everything seeded by the sample's number. So the difference of two adapters is seen ten times anew, training data, test
data and seeds: its scatter over the samples is what a reported standard error claims to be.

For every pair and metric the root mean square of the reported standard errors is held against that scatter, by two
methods: ``fold_scores``, the correlated t of Nadeau and Bengio, and ``examples``, what tests and trainings contribute
apart (lora_search/statistics/two_sources.py). A scatter from ten samples is itself uncertain by a quarter.

Predictions out of fold go to sample-N.npz, a sample at a time, and are not trained again; ``--only-analyse`` trains
nothing. The record is ten_samples.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pandas as pd

from lora_search.metrics import CLASS_METRICS
from lora_search.statistics import Posterior, Recorded, pairwise, pairwise_by_example
from lora_search.statistics.two_sources import dispersion

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES, FOLDS = 1200, 5
ADAPTERS = ((1, "top-1/3", 5.6e-3), (4, "top-1/2", 5.6e-3), (16, "top-1/2", 1.8e-3))
"""(rank, layers, learning rate), query and value, alpha twice the rank: each at a rate near its best."""
Array = np.ndarray[Any, np.dtype[Any]]


def deal(groups: Array, samples: int, rng: np.random.Generator) -> list[Array]:
    """Rows of each sample: whole groups, dealt at random so that samples come out nearly equal in size."""
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    dealt, filled = np.empty(len(sizes), dtype=np.int64), np.zeros(samples)
    for group in rng.permutation(len(sizes)):
        dealt[group] = filled.argmin()
        filled[dealt[group]] += sizes[group]
    return [np.flatnonzero(dealt[member] == sample) for sample in range(samples)]


def train(samples: int, overrides: list[str], out: Path) -> None:
    """Train every sample that has no file yet."""
    from lora_search.data import load_dataset
    from lora_search.spec import load_experiment
    from lora_search.study.preparation import prepare

    wanted = [sample for sample in range(samples) if not (out / f"sample-{sample}.npz").exists()]
    if not wanted:
        return
    quickstart = ROOT / "experiments/quickstart.toml"
    everything = load_experiment(quickstart, overrides).data.model_copy(update={"max_examples": None})
    dataset = load_dataset(everything, seed=0)
    dealt = deal(dataset.groups, samples, np.random.default_rng(0))
    for sample in wanted:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "sample.csv"
            rows = dealt[sample]
            pd.DataFrame(
                {
                    "text": [dataset.texts[row] for row in rows],
                    "category": [dataset.label_names[dataset.labels[row]] for row in rows],
                    "movie_name": dataset.groups[rows],
                }
            ).to_csv(file, index=False)
            said = [f"data.train={json.dumps(str(file))}", f"seed={sample}", "data.drop_labels=[]"]
            prepared = prepare(load_experiment(quickstart, [*overrides, *said]))
        record(sample, prepared, out)


def record(sample: int, prepared: Any, out: Path) -> None:
    """Train one sample's cells in one pack and keep what they predict."""
    from lora_search.spec import AdapterSpec, Nuisance
    from lora_search.store.records import CellKey
    from lora_search.study.environment import describe_environment
    from lora_search.study.preparation import measured_dtype
    from lora_search.training import Engine, EngineSettings

    dtype = measured_dtype(prepared)
    engine = Engine(prepared.base, prepared.data, prepared.experiment.training, EngineSettings(prepared.device, dtype))
    cells = [
        prepared.cell(
            CellKey(row, 0, fold),
            AdapterSpec(rank=rank, alpha=2 * rank, targets="query+value", layers=layers),
            Nuisance(learning_rate=rate),
        )
        for fold in range(FOLDS)
        for row, (rank, layers, rate) in enumerate(ADAPTERS)
    ]
    labels, groups = prepared.data.labels, prepared.data.groups
    probabilities = np.full((len(ADAPTERS), len(labels), len(prepared.data.label_names)), np.nan, dtype=np.float16)
    folds = np.full(len(labels), -1, dtype=np.int8)
    for trained in engine.train(cells, pack=0):
        result = trained.result
        probabilities[result.key.trial, result.examples] = result.probabilities
        folds[result.examples] = result.key.fold
    out.mkdir(parents=True, exist_ok=True)
    facts = describe_environment(prepared) | {"precision": str(dtype).removeprefix("torch.")}
    unfinished = out / f"unfinished-{sample}.npz"
    np.savez_compressed(
        unfinished,
        probability=probabilities,
        fold=folds,
        label=labels.astype(np.int8),
        group=groups.astype(np.int16),
        facts=np.array(json.dumps(facts, default=str)),
    )
    unfinished.replace(out / f"sample-{sample}.npz")  # a run killed while writing leaves no sample half
    print(f"sample {sample}: {(probabilities.argmax(-1) == labels).mean(axis=1).round(4)}", flush=True)


def recorded(file: Path) -> Recorded:
    """The predictions of one sample as a study has them: trials are the rows of ``ADAPTERS``."""
    with np.load(file, allow_pickle=False) as arrays:
        probability, fold, label, group = (arrays[name] for name in ("probability", "fold", "label", "group"))
    rows, examples, classes = probability.shape
    table: dict[str, Any] = {
        "trial": np.repeat(np.arange(rows), examples),
        "repeat": 0,
        "fold": np.tile(fold, rows),
        "example": np.tile(np.arange(examples), rows),
    }
    table |= {f"p{name}": probability[..., name].ravel().astype(np.float32) for name in range(classes)}
    return Recorded(pd.DataFrame(table), pd.DataFrame({"label": label, "group": group}))


def methods(study: Recorded, metric: str, rows: int) -> Iterator[tuple[str, Posterior]]:
    """What each method says of all pairs."""
    examples = study.scores(range(rows), metric)
    assert examples is not None, "asked for metrics that have contributions"
    held_out = np.median([(examples.folds == fold).sum() for fold in range(FOLDS)])
    yield "fold_scores", pairwise(examples.cell_scores(), FOLDS, resolution=1.0 / 6.0 / float(held_out) ** 2)
    yield "examples", pairwise_by_example(examples, FOLDS)


def analyse(studies: list[Recorded], rows: int = len(ADAPTERS)) -> list[dict[str, Any]]:
    """One line per metric and pair: the scatter of the differences, and what each method reported, in metric units."""
    lines = []
    for metric in (each.name for each in CLASS_METRICS if each.greater_is_better):
        said = [dict(methods(study, metric, rows)) for study in studies]
        for first, second in combinations(range(rows), 2):
            seen = np.array([posteriors["examples"].mean[first, second] for posteriors in said])
            line: dict[str, Any] = {
                "metric": metric,
                "pair": [first, second],
                "difference": round(float(seen.mean()), 5),
                "scatter": round(float(seen.std(ddof=1)), 5),
            }
            for method in said[0]:
                scale = np.array([posteriors[method].scale[first, second] for posteriors in said])
                reach = np.array([posteriors[method].interval(0.95)[1][first, second] for posteriors in said]) - seen
                line[method] = {
                    "standard_error": round(float(np.sqrt((scale**2).mean())), 5),
                    "ratio": round(float(np.sqrt((scale**2).mean()) / seen.std(ddof=1)), 3),
                    "half_interval": round(float(np.median(reach)), 5),
                }
            lines.append(line)
    return lines


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over pairs and metrics of reported over real, per method."""
    return {
        method: round(float(np.median([line[method]["ratio"] for line in lines])), 3)
        for method in ("fold_scores", "examples")
    }


def training_share(studies: list[Recorded], rows: int = len(ADAPTERS)) -> float:
    """Of the variance of differences between folds, what trainings contribute: its excess over what examples explain,
    over all pairs and samples, for accuracy; 0 where examples explain it all."""
    ratios = []
    for study in studies:
        examples = study.scores(range(rows), "accuracy")
        assert examples is not None, "accuracy has contributions"
        ratios.append(dispersion(examples)[np.triu_indices(rows, 1)])
    return round(max(0.0, 1.0 - 1.0 / float(np.nanmean(ratios))), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--only-analyse", action="store_true", help="train nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override the quick start's spec")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/ten_samples")
    options = parser.parse_args()
    if not options.only_analyse:
        train(options.samples, options.overrides, options.out)
    files = sorted(options.out.glob("sample-*.npz"), key=lambda file: int(file.stem.split("-")[1]))
    if len(files) < 2:
        raise SystemExit(f"{options.out}: must hold at least two samples, got {len(files)}")
    studies = [recorded(file) for file in files]
    lines = analyse(studies)
    with np.load(files[0], allow_pickle=False) as arrays:
        facts = json.loads(str(arrays["facts"]))
    record = {
        "what": "reported standard error over the real scatter of differences between adapters, median over pairs and"
        " metrics; to be 0.9 to 1.2",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": len(files),
        "examples": EXAMPLES,
        "folds": FOLDS,
        "adapters": [dict(zip(("rank", "layers", "learning_rate"), one, strict=True)) for one in ADAPTERS],
        "trained_with": facts,
        "ratio": summary(lines),
        "training_share": training_share(studies),
        "lines": lines,
    }
    (options.out / "ten_samples.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for line in lines:
        print(json.dumps(line))
    print(json.dumps(record["ratio"]))


if __name__ == "__main__":
    main()
