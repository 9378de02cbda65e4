"""What two papers found of rank, place and learning rate, in miniature and with intervals.

    python experiments/audits/papers.py [--only PAPER] [--set KEY=VALUE] [--studies FOLDER] [--out FOLDER]

Hu et al. 2021 ("LoRA", section 7.1 and table 6): on GPT-3 a rank of 1 suffices where query and value are adapted,
query alone wants a larger one, and ranks up to 64 bring little more. Schulman et al. 2025 ("LoRA Without Regret"):
adapters on attention alone do worse than those on all matrices or on the MLP, even where they have as many parameters;
and the best learning rate hardly depends on the rank where the update is scaled by 1 / rank. Here alpha / rank is held,
so as far as only the product of scale and rate matters theirs reads: the best rate falls as 1 / rank, a slope of -1.

Each paper is one study, as any user would run it: every adapter at its own rate, five folds, racing. What is recorded
of a claim is the paired difference of two adapters with its 95 % interval (statistics.two_sources; one of the many
there are, so an interval by itself is no verdict), the score of every adapter, and the study's figures. An interrupted
run goes on from --studies.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from lora_search import figures, load_experiment, run_study
from lora_search.reporting.page import save_figures
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.contest import Contest
from lora_search.statistics.judging import judge
from lora_search.statistics.recorded import recorded_of
from lora_search.store.files import json_text, write_atomically
from lora_search.store.reader import StudyTables
from lora_search.study.environment import hardware, versions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

Key = tuple[int, str]
"""Rank and targets of an adapter."""


@dataclass(frozen=True)
class Paper:
    """What a paper says, as a search and pairs of adapters.

    Attributes:
        search: over ranks and targets.
        claims: by what is asked, a first adapter and a second; the difference is the first's score less the second's.
    """

    search: Mapping[str, Any]
    claims: Mapping[str, tuple[Key, Key]]


PAPERS = {
    "hu2021": Paper(
        {"rank": [1, 2, 4, 8, 64], "targets": ["query", "query+value", "attention"], "trials": 36, "cells": 140},
        {
            "rank 64 less rank 1, query and value": ((64, "query+value"), (1, "query+value")),
            "rank 8 less rank 1, query and value": ((8, "query+value"), (1, "query+value")),
            "rank 64 less rank 1, query alone": ((64, "query"), (1, "query")),
            "rank 64 less rank 1, all of attention": ((64, "attention"), (1, "attention")),
            "query and value less query alone, with as many parameters": ((4, "query+value"), (8, "query")),
            "all of attention less query and value, with as many parameters": ((4, "attention"), (8, "query+value")),
        },
    ),
    "without_regret": Paper(
        # with as many parameters: 5 on attention and 4 on the MLP, 9 on attention and 4 on all matrices
        {"rank": [4, 5, 9], "targets": ["attention", "mlp", "all-linear"], "trials": 27, "cells": 110},
        {
            "the MLP less attention, with as many parameters": ((4, "mlp"), (5, "attention")),
            "all matrices less attention, with as many parameters": ((4, "all-linear"), (9, "attention")),
            "all matrices less the MLP, of one rank": ((4, "all-linear"), (4, "mlp")),
        },
    ),
}


def compared(tables: StudyTables, paper: Paper) -> dict[str, Any]:
    """What a finished study says of a paper's claims."""
    study = by_adapter(tables)
    metric = study.experiment.verdict.metric
    matrix = Contest(study.trials, study.cells, metric, recorded_of(study)).everyone_by_example
    posterior = matrix.pairs(study.experiment.cv.folds)
    low, high = posterior.interval()
    rows = {int(row["trial"]): row for row in study.trials.to_dict("records")}
    place = {(int(rows[t]["rank"]), str(rows[t]["targets"])): at for at, t in enumerate(matrix.trials)}
    scores = []
    for (rank, targets), at in sorted(place.items(), key=lambda item: (item[0][1], item[0][0])):
        row = rows[matrix.trials[at]]
        scores.append(
            {
                "rank": rank,
                "targets": targets,
                "adapter_parameters": int(row["adapter_parameters"]),
                "learning_rate": float(row["learning_rate"]),
                "state": row["state"],
                "cells": matrix.cells_of(matrix.trials[at]),
                "score_mean": float(np.nanmean(matrix.scores[at])),
            }
        )
    claims = {}
    for asked, (first, second) in paper.claims.items():
        if first in place and second in place:
            pair = place[first], place[second]
            claims[asked] = {
                "difference": float(posterior.mean[pair]),
                "interval": [float(low[pair]), float(high[pair])],
                "cells": int(posterior.cells[pair]),
            }
    return {"claims": claims, "best_rates": best_rates(scores), "adapters": scores}


def best_rates(scores: list[dict[str, Any]]) -> dict[str, float]:
    """By targets, the slope of the log of the chosen learning rate over the log of the rank."""
    slopes = {}
    for targets in sorted({row["targets"] for row in scores}):
        chosen = [(row["rank"], row["learning_rate"]) for row in scores if row["targets"] == targets]
        if len(chosen) > 2:
            ranks, rates = np.log(np.array(chosen)).T
            slopes[targets] = float(np.polyfit(ranks, rates, 1)[0])
    return slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(PAPERS), help="one paper instead of both")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override a value of papers.toml")
    parser.add_argument("--studies", type=Path, default=Path(tempfile.gettempdir()) / "lora_search-papers-audit")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/papers")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, paper in PAPERS.items():
        if options.only not in (None, name):
            continue
        filled = {"name": name, **{f"search.{key}": value for key, value in paper.search.items()}}
        given = [f"{key}={json.dumps(value)}" for key, value in filled.items()]
        experiment = load_experiment(HERE / "papers.toml", [*given, *options.overrides])
        tables = run_study(experiment, options.studies)
        verdict = judge(tables).to_dict()
        content = {
            "what": f"the claims of {name} in miniature: paired differences of accuracies, with 95 % intervals",
            "hardware": hardware(),
            "versions": versions(),
            "experiment": experiment.model_dump(mode="json"),
            "sentence": verdict["sentence"],
            "warnings": verdict["warnings"],
            **compared(tables, paper),
        }
        write_atomically(options.out / f"{name}.json", json_text(content))
        drawn = figures(tables, verdict)
        save_figures({f"{name}_{kind}": drawn[kind] for kind in ("score_by_parameters", "score_by_rate")}, options.out)
        print(json.dumps(content["claims"], indent=1), flush=True)


if __name__ == "__main__":
    main()
