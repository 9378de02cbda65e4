"""Would a spectral warm start pay? What the gradient of the frozen weights says, against an exhaustive grid.

    python experiments/audits/spectral.py [--samples 8] [--grid results/audits/grid/cells.csv] [--out FILE]

The idea: before any trial, one pass of gradients G = dL/dW over a sample, the head trained alone first. LoRA of rank r
on W can follow G at most as far as its r largest singular values s_i go (its best rank-r approximation, Eckart and
Young 1936; the initialisation of LoRA-GA, Wang et al. 2024, rests on it). So

    captured(configuration) = sum over its modules of the r largest s_i^2, as a share of the sum over all modules

would tell which layers and what rank matter, and the study would begin with the smallest configurations that capture
50, 70 and 90 % of what the largest of the space does.

The question: are these three better to begin with than three others? ``grid.py`` trained 24 configurations on 20 cells
each, so their scores are known. Reported, as means over samples (other sample, other head, other fold):

- ``correlation``: Spearman's, between what configurations capture and what they score; ``size_correlation`` between
  their number of parameters and score, which needs no gradients.
- ``hit``: share of samples in which the three hold a configuration that is within the margin of the best and no larger
  than the smallest such one times two; ``random_hit``: the same of three drawn at random, over all draws.
- ``shortfall``: points that the best of the three is below the best of all; ``random_shortfall``.
- ``guess_hit``, ``guess_shortfall``: the same of what a study begins with as it is, the guesses people make
  (``study.space``), as far as the grid has them.
- ``seconds``: of the head's training and the pass, beside the cost of one average training of the grid.

It pays if it hits more often than those guesses, and than chance by more than two standard errors: it would cost a pass
of gradients, and two or three trials that the sampler could use.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from grid import EXAMPLES, FOLDS, LAYERS, PORTABLE, RANKS, ROOT, Configuration, configurations
from scipy.stats import spearmanr
from torch.nn import functional as F

from lora_search.adapters import merge_into
from lora_search.spec import Nuisance, load_experiment
from lora_search.store.records import CellKey
from lora_search.study.environment import hardware, versions
from lora_search.study.preparation import Prepared, prepare
from lora_search.study.space import guesses
from lora_search.training import Engine, EngineSettings

SHARES = (0.5, 0.7, 0.9)
MARGIN = 0.01
SAMPLE = 256
HEAD_LEARNING_RATE = 5e-3
POINTS = 100.0


def gradients(prepared: Prepared, engine: Engine, fold: int) -> dict[str, torch.Tensor]:
    """dL/dW (out, in) of every linear module of the stack, mean over a sample of a fold's training examples, with the
    head that training it alone on that fold gives."""
    row = configurations(prepared)[0]
    cell = prepared.cell(CellKey(0, *divmod(fold, FOLDS)), row.adapter, row.nuisance)
    alone = replace(cell, modules=(), nuisance=Nuisance(learning_rate=HEAD_LEARNING_RATE))
    (trained,) = engine.train([alone], pack=-1)
    model = copy.deepcopy(prepared.base.model)
    merge_into(model, trained.state, scale=1.0)
    weights = {
        module.name: model.get_submodule(module.name).weight for module in prepared.base.structure.linear_modules
    }
    for weight in weights.values():
        weight.requires_grad_(True)
    examples = cell.train[:SAMPLE]
    for part in np.array_split(examples, max(1, len(examples) // 16)):
        batch = engine.forward.storage.batch(part, int(prepared.data.lengths[part].max()))
        labels = torch.from_numpy(prepared.data.labels[part])
        (F.cross_entropy(model(**batch.arguments).logits, labels, reduction="sum") / len(examples)).backward()
    return {name: weight.grad for name, weight in weights.items()}


def captured(prepared: Prepared, rows: list[Configuration], found: dict[str, torch.Tensor]) -> np.ndarray:
    """What each configuration can follow of the gradient, as a share of all of it, (configurations,)."""
    energy = {name: torch.linalg.svdvals(gradient).square().cumsum(0) for name, gradient in found.items()}
    total = sum(float(values[-1]) for values in energy.values())
    return np.array(
        [
            sum(float(energy[module.name][row.adapter.rank - 1]) for module in prepared.modules_of(row.adapter)) / total
            for row in rows
        ]
    )


def suggested(shares: np.ndarray, parameters: np.ndarray) -> list[int]:
    """The smallest configurations that capture 50, 70 and 90 % of the most that any captures."""
    smallest_first = np.argsort(parameters, kind="stable")
    chosen = [next(int(i) for i in smallest_first if shares[i] >= share * shares.max()) for share in SHARES]
    return list(dict.fromkeys(chosen))


def hits(chosen: list[int], scores: np.ndarray, parameters: np.ndarray) -> bool:
    """Whether some chosen configuration is within the margin of the best and at most twice the smallest such one."""
    good = scores >= scores.max() - MARGIN
    return bool((good[chosen] & (parameters[chosen] <= 2 * parameters[good].min())).any())


def guessed(prepared: Prepared, rows: list[Configuration]) -> list[int]:
    """The configurations a study over the grid's space would begin with."""
    search = prepared.experiment.search.model_copy(update={"rank": RANKS, "layers": LAYERS})
    keys = [(point["rank"], point["targets"], point["layers"]) for point in guesses(search, "all")]
    return [i for i, row in enumerate(rows) if (row.adapter.rank, row.adapter.targets, row.adapter.layers) in keys]


def measure(samples: int, grid: Path) -> dict[str, Any]:
    given = [f"cv.folds={FOLDS}", f"cv.repeats={-(-samples // FOLDS)}", f"data.max_examples={EXAMPLES}", *PORTABLE]
    prepared = prepare(load_experiment(ROOT / "experiments/quickstart.toml", given))
    engine = Engine(
        prepared.base, prepared.data, prepared.experiment.training, EngineSettings(prepared.device, torch.float32)
    )
    cells = pd.read_csv(grid)
    scores = cells.groupby("trial")["score"].mean().sort_index().to_numpy()
    rows = configurations(prepared)
    parameters = np.array([row.parameters for row in rows])
    usual = guessed(prepared, rows)
    found = []
    for sample in range(samples):
        start = time.perf_counter()
        shares = captured(prepared, rows, gradients(prepared, engine, sample))
        seconds = time.perf_counter() - start
        chosen = suggested(shares, parameters)
        draws = list(combinations(range(len(rows)), len(chosen)))
        found.append(
            {
                "suggested": chosen,
                "correlation": float(spearmanr(shares, scores).statistic),
                "size_correlation": float(spearmanr(parameters, scores).statistic),
                "hit": float(hits(chosen, scores, parameters)),
                "random_hit": float(np.mean([hits(list(draw), scores, parameters) for draw in draws])),
                "shortfall": POINTS * float(scores.max() - scores[chosen].max()),
                "random_shortfall": POINTS
                * float(np.mean([scores.max() - scores[list(draw)].max() for draw in draws])),
                "guess_hit": float(hits(usual, scores, parameters)),
                "guess_shortfall": POINTS * float(scores.max() - scores[usual].max()),
                "seconds": seconds,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    table = pd.DataFrame(found).drop(columns="suggested")
    means, errors = table.mean(), table.std(ddof=1) / np.sqrt(samples)
    figures = {str(name): [round(float(means[name]), 4), round(float(errors[name]), 4)] for name in table}
    hit, error = figures["hit"]
    return {
        "samples": samples,
        "margin": MARGIN,
        **figures,
        "grid_seconds_per_training": round(float(cells["seconds"].mean()), 2),
        "guesses": usual,
        "pays": bool(hit > figures["random_hit"][0] + 2 * error and hit > figures["guess_hit"][0]),
        "rounds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--grid", type=Path, default=ROOT / "results/audits/grid/cells.csv")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/spectral.json")
    options = parser.parse_args()
    record = {
        "what": "configurations that a spectral warm start would begin with, against an exhaustive grid",
        "hardware": hardware(),
        "versions": versions(),
        **measure(options.samples, options.grid),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("rounds", "versions")}, indent=1))


if __name__ == "__main__":
    main()
