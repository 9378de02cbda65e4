"""A film critic's world of sixty sentences and a BERT of three layers: a whole study of it takes seconds."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from lora_search.spec.toml import toml_document
from lora_search.store.reader import read_predictions, read_study

LAYERS = 3
GOOD = ("lovely", "bright", "tender", "witty", "superb", "moving")
BAD = ("dull", "clumsy", "noisy", "stale", "hollow", "tired")
PLAIN = ("a", "the", "film", "plot", "scene", "cast", "story", "camera", "and", "with", "its", "very")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def sentences(count: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) pairs, all texts different; the label follows from three of the words of a text."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label, words = (("fresh", GOOD), ("rotten", BAD))[len(found) % 2]
        text = [*draw.choices(PLAIN, k=draw.randint(1, 4)), *draw.choices(words, k=3)]
        draw.shuffle(text)
        found.setdefault(" ".join(text), label)
    return list(found.items())


def write_sentences(path: Path, rows: list[tuple[str, str]] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *(rows or sentences())])
    return path


def write_model(folder: Path, seed: int = 0) -> Path:
    """A BERT with random weights, drawn wide enough that its layers tell words apart, and its WordPiece tokenizer."""
    folder.mkdir()
    words = [*SPECIAL, *PLAIN, *GOOD, *BAD]
    inner = BertWordPieceTokenizer({word: index for index, word in enumerate(words)})
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, **names).save_pretrained(folder)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=32,
        initializer_range=0.2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def settings(model: Path | str, data: Path | str, /, **tables: Any) -> dict[str, Any]:
    """An experiment of four trials at one learning rate in two folds.

    ``settings(..., search={"rank": [1]})`` changes some of it.
    """
    values: dict[str, Any] = {
        "name": "critics",
        "seed": 0,
        "model": {"base": str(model)},
        "data": {"train": str(data), "max_length": 16},
        "cv": {"folds": 2},
        "search": {
            "rank": [1, 2, 4],
            "targets": ["query+value", "all-linear"],
            "layers": ["all", "top-1"],
            "learning_rate": 0.02,
            "trials": 4,
        },
        "training": {"epochs": 3, "batch_size": 8, "precision": "fp32"},
        "verdict": {"metric": "accuracy", "margin": 0.05, "confidence": 0.9, "extra_repeats": 0},
    }
    return changed(values, tables)


def changed(values: dict[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment of which some tables have other values, or more."""
    for key, value in tables.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return values


def write_experiment(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(toml_document(values), encoding="utf-8")
    return path


RECORDED = [
    "trial", "repeat", "fold", "state", "score", "accuracy", "macro_f1", "matthews_correlation", "log_loss",
    "train_loss", "examples", "train_examples", "steps", "tokens", "pack_cells", "failure",
]  # fmt: skip
ASKED = [
    "trial", "state", "origin", "rank", "alpha", "targets", "layers", "scaling", "learning_rate", "dropout",
    "adapter_parameters", "head_parameters", "cells", "score_mean", "score_std", "failure",
]  # fmt: skip
"""Columns of cells.csv and of trials.csv that are results, and not the time they took."""


def assert_same_study(one: Path, other: Path) -> None:
    """The same trials, scores, predictions and verdict, bit for bit."""
    for name, columns in (("trials.csv", ASKED), ("cells.csv", RECORDED)):
        pd.testing.assert_frame_equal(
            pd.read_csv(one / name)[columns], pd.read_csv(other / name)[columns], check_exact=True
        )
    pd.testing.assert_frame_equal(read_predictions(one), read_predictions(other), check_exact=True)
    assert without_time(read_study(one).verdict()) == without_time(read_study(other).verdict())


def without_time(value: Any) -> Any:
    """JSON values less every ``seconds``."""
    if isinstance(value, dict):
        return {key: without_time(item) for key, item in value.items() if key != "seconds"}
    return [without_time(item) for item in value] if isinstance(value, list) else value
