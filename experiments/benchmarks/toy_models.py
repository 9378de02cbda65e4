"""Models of real shapes with random weights, random texts and cells over them: for what measures time, not scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_search.data import EncodedExamples
from lora_search.data.report import DataReport
from lora_search.models import FrozenBase, inspect_model, resolve_targets
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey
from lora_search.tasks import task_of
from lora_search.training import Cell

LABELS = ("negative", "positive")
MINILM = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
TINY = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
RATE = 1e-3
RANKS = (1, 2, 4, 8, 16)
TARGETS = ("all-linear", "attention", "query+value")


def random_base(shape: dict[str, Any], dtype: torch.dtype, device: torch.device) -> FrozenBase:
    """A classifier of this shape with random weights."""
    kind = shape["model_type"]
    settings = {key: value for key, value in shape.items() if key != "model_type"}
    config = AutoConfig.for_model(kind, num_labels=len(LABELS), pad_token_id=0, use_cache=False, **settings)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    model = model.eval().requires_grad_(False)
    return FrozenBase(model, None, inspect_model(model), task_of("text-classification").head(LABELS), "random")


def random_data(count: int, vocabulary: int) -> EncodedExamples:
    """Texts of 4 to 64 random tokens, most of them short."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(3.0, 0.5, count).astype(np.int64), 4, 64)
    ids = tuple(random.integers(3, vocabulary, length) for length in lengths)
    labels = np.arange(count) % len(LABELS)
    report = DataReport("random", count, {}, None, dict.fromkeys(LABELS, count // 2), None, None, 0, 0, ())
    return EncodedExamples(ids, None, labels, LABELS, lengths, np.arange(count), report, "random")


def cells_of(base: FrozenBase, examples: int, choices: Sequence[tuple[int, str, str]]) -> list[Cell]:
    """One cell per (rank, targets, layers): trained on four of five examples, scored on the fifth."""
    everything = np.arange(examples)
    return [
        Cell(
            CellKey(trial, 0, 0),
            AdapterSpec(rank=rank, alpha=2 * rank, targets=targets, layers=layers),
            Nuisance(learning_rate=RATE),
            resolve_targets(base.structure, targets, layers),
            train=everything[everything % 5 != 0],
            evaluate=everything[everything % 5 == 0],
            seed=0,
        )
        for trial, (rank, targets, layers) in enumerate(choices)
    ]


def pack_of(base: FrozenBase, examples: int, count: int, layers: str) -> list[Cell]:
    """A pack of one fold as a study cuts them: ranks and targets of every kind, those of the same targets side by
    side."""
    targets = sorted(TARGETS[trial % len(TARGETS)] for trial in range(count))
    return cells_of(base, examples, [(RANKS[i % len(RANKS)], name, layers) for i, name in enumerate(targets)])
