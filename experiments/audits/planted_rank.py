"""Does a study find what is known to be there?  Labels come from a teacher whose update has a known rank and place.

    python experiments/audits/planted_rank.py [--seeds 2] [--out results/audits/planted_rank.json]

The base is a BERT of three layers with random weights. The teacher is the base with an update of rank r* planted into
query and value of known layers (its singular values are equal, so no smaller rank comes near it) and a random head of
four labels; the texts are random words, labelled by the teacher. Half of them are a hold-out no fold sees. The study is
run through ``run_study`` over every pair of three ranks and four choices of layers; the planted pair is among them.

What to expect, and what is counted: a study does not look for r* but for the smallest adapter that is not worse than
the best. So it is right if the recommended has at least rank r* *or* agrees with the teacher on the hold-out as well as
the planted pair trained on the same examples does (within the margin). Whether its layers include the planted ones is
counted beside it: an update of one layer can often be made up for in another.

Results go to the file study by study; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from lora_search import run_study
from lora_search.spec import AdapterSpec, Experiment, Nuisance
from lora_search.store.reader import StudyTables
from lora_search.study.environment import hardware, versions
from lora_search.study.preparation import measured_dtype, prepare
from lora_search.study.refit import refit_cell
from lora_search.training import Engine, EngineSettings

ROOT = Path(__file__).resolve().parents[2]
LAYERS, WIDTH, LABELS, WORDS, EXAMPLES = 3, 32, 4, 24, 2400
RANKS = (1, 2, 4)
PLACES = ("0", "1", "2", "all")
PLANTED = ((1, "2"), (4, "2"), (2, "0"), (4, "all"))
"""(rank, layers) of the teacher's update."""
STRENGTH = 2.0
"""Singular values of the update, in largest singular values of a random weight."""
DEVIATION = 0.2
LEARNING_RATE, MARGIN = 2e-2, 0.02
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class Planted:
    """One teacher: the rank and the layers of its update, and the seed of everything random."""

    rank: int
    layers: str
    seed: int

    @property
    def layer_numbers(self) -> frozenset[int]:
        return layer_numbers(self.layers)


def layer_numbers(layers: str) -> frozenset[int]:
    """The layers a choice names."""
    return frozenset(range(LAYERS)) if layers == "all" else frozenset(int(layer) for layer in layers.split(","))


def planted_update(rank: int, width: int, generator: torch.Generator) -> Tensor:
    """(width, width) of exactly this rank, all its singular values the same."""
    left, right = (torch.linalg.qr(torch.randn(width, rank, generator=generator))[0] for _ in range(2))
    return STRENGTH * 2.0 * DEVIATION * width**0.5 * left @ right.T


def texts(count: int, seed: int) -> list[str]:
    """Different texts of 3 to 6 random words."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(3, 6)))] = None
    return list(found)


def write_base(folder: Path, seed: int) -> Path:
    """The base and its tokenizer, one token per word."""
    folder.mkdir()
    words = [*SPECIAL.values(), *(f"w{number}" for number in range(WORDS))]
    inner = BertWordPieceTokenizer({word: index for index, word in enumerate(words)})
    PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, **SPECIAL).save_pretrained(folder)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=32,
        initializer_range=DEVIATION,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def teacher_labels(base: Path, planted: Planted, examples: Sequence[str]) -> np.ndarray:
    """int64 (examples,): the teacher's label of each text. Its logits are standardised, so that labels are balanced."""
    model = AutoModel.from_pretrained(base).eval()
    generator = torch.Generator().manual_seed(1000 + planted.seed)
    for layer in sorted(planted.layer_numbers):
        attention = model.encoder.layer[layer].attention.self
        for projection in (attention.query, attention.value):
            projection.weight += planted_update(planted.rank, WIDTH, generator)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    pooled = torch.cat(
        [
            model(**tokenizer(list(part), padding=True, return_tensors="pt")).pooler_output
            for part in (examples[first : first + 256] for first in range(0, len(examples), 256))
        ]
    )
    logits = pooled @ torch.randn(WIDTH, LABELS, generator=generator)
    return ((logits - logits.mean(dim=0)) / logits.std(dim=0)).argmax(dim=1).numpy()


def experiment_of(planted: Planted, base: Path, data: Path) -> Experiment:
    return Experiment.model_validate(
        {
            "name": f"planted-{planted.rank}-{planted.layers}-{planted.seed}",
            "seed": planted.seed,
            "model": {"base": str(base)},
            "data": {"train": str(data), "max_length": 16, "holdout": 0.5},
            "cv": {"folds": 3},
            "search": {
                "rank": RANKS,
                "alpha_over_rank": [1],
                "targets": ["query+value"],
                "layers": PLACES,
                "learning_rate": LEARNING_RATE,
                "trials": len(RANKS) * len(PLACES),
            },
            "training": {"epochs": 8, "batch_size": 32, "precision": "fp32"},
            "verdict": {"metric": "accuracy", "margin": MARGIN, "confidence": 0.9, "extra_repeats": 1},
        }
    )


def run_planted(planted: Planted) -> dict[str, Any]:
    """One study of one teacher."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        base, data = write_base(Path(folder) / "base", planted.seed), Path(folder) / "texts.csv"
        examples = texts(EXAMPLES, planted.seed)
        labels = teacher_labels(base, planted, examples)
        with data.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *zip(examples, (f"label {n}" for n in labels), strict=True)])
        experiment = experiment_of(planted, base, data)
        tables = run_study(experiment, Path(folder) / "results", progress=False)
        same = AdapterSpec(rank=planted.rank, alpha=planted.rank, targets="query+value", layers=planted.layers)
        found = _row(planted, tables, _holdout_agreement(experiment, same))
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def _holdout_agreement(experiment: Experiment, adapter: AdapterSpec) -> float:
    """Share of the hold-out on which this adapter, trained on everything else, agrees with the teacher."""
    prepared = prepare(experiment)
    settings = EngineSettings(prepared.device, measured_dtype(prepared))
    engine = Engine(prepared.base, prepared.data, experiment.training, settings)
    cell = refit_cell(prepared, 0, adapter, Nuisance(learning_rate=LEARNING_RATE))
    return float(engine.train([cell], pack=0)[0].result.scores["accuracy"])


def _row(planted: Planted, tables: StudyTables, reference: float) -> dict[str, Any]:
    verdict = tables.verdict() or {}
    found, best = (verdict[name]["adapter"] for name in ("recommended", "best"))
    agreement = float(verdict["holdout_score"])
    scores = tables.trials.set_index(["rank", "layers"])["score_mean"]
    return {
        "planted_rank": planted.rank,
        "planted_layers": planted.layers,
        "seed": planted.seed,
        "status": verdict["status"],
        "recommended": [found["rank"], found["layers"]],
        "best": [best["rank"], best["layers"]],
        "rank_reached": found["rank"] >= planted.rank,
        "layers_included": layer_numbers(found["layers"]) >= planted.layer_numbers,
        "holdout_agreement": round(agreement, 4),
        "holdout_agreement_of_planted": round(reference, 4),
        "as_good": agreement >= reference - MARGIN,
        "scores": {f"rank {rank}, layers {layers}": round(float(score), 4) for (rank, layers), score in scores.items()},
        "head_alone": round(float(np.mean([score["accuracy"] for score in tables.facts["head alone"]])), 4),
        "cells": len(tables.cells),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over the studies."""
    return {
        "studies": len(rows),
        "right": sum(row["rank_reached"] or row["as_good"] for row in rows),
        "rank_reached": sum(row["rank_reached"] for row in rows),
        "as_good_on_holdout": sum(row["as_good"] for row in rows),
        "layers_included": sum(row["layers_included"] for row in rows),
        "decided": sum(row["status"] == "decided" for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="per planted rank and layers")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/planted_rank.json")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = {"examples": EXAMPLES, "ranks": list(RANKS), "layers": list(PLACES), "strength": STRENGTH}
    settings |= {"learning_rate": LEARNING_RATE, "margin": MARGIN}
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows = kept["studies"] if kept.get("settings") == settings else []
    done = {(row["planted_rank"], row["planted_layers"], row["seed"]) for row in rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed, (rank, layers) in itertools.product(range(options.seeds), PLANTED):
        if (rank, layers, seed) not in done:
            rows.append(run_planted(Planted(rank, layers, seed)))
            print(json.dumps(rows[-1]), flush=True)
            content = {"settings": settings, "summary": summary(rows), "hardware": hardware(), "versions": versions()}
            options.out.write_text(json.dumps(content | {"studies": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
