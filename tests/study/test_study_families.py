"""Every family that people have, in the narrowest form of the contract: its modules found, a pack of it trained with
caches as each cell alone without, its parameters counted as PEFT counts them, its adapter exported and loaded by PEFT.

Families whose layers are written anew are in ``test_training_contract`` too, in every way of computing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from word_tokenizer import SPECIAL, WORDS, save_tokenizer

from lora_search import Experiment
from lora_search.errors import ModelError
from lora_search.handover import adapter_config
from lora_search.models import adapter_parameters, quiet_libraries
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey
from lora_search.study import Prepared, prepare
from lora_search.study.trial_export import check_export
from lora_search.training import Engine, EngineSettings
from lora_search.training.cell import Cell

TOLERANCE = 1e-5
CPU = torch.device("cpu")
ENCODER = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
DECODER = {**ENCODER, "num_key_value_heads": 2}
HEADS = {**DECODER, "head_dim": 8}
GPT = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
MIXTURE = {**HEADS, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
BOTH = {"d_model": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4, "d_ff": 48, "d_kv": 8}

CLASSIFY, MARK, GO_ON = "text-classification", "token-classification", "causal-lm"
METRICS = {CLASSIFY: "accuracy", MARK: "entity_f1", GO_ON: "completion_loss"}
PEFT_TYPES = {CLASSIFY: "SEQ_CLS", MARK: "TOKEN_CLS", GO_ON: "CAUSAL_LM"}
"""Tasks, each with a metric and PEFT's name."""


@dataclass(frozen=True)
class Family:
    """A tiny model of a family and what is known of it.

    Attributes:
        kind: of its config.
        query_value: leaves that the group adapts.
        config: its sizes.
        task: the model's head.
        group: of modules, of which the adapter tried has all.
        resumes: whether its frozen lower layers are cached.
        tokenizer: what is special about its tokenizer.
        says: a part of a note of its plan.
    """

    kind: str
    query_value: tuple[str, ...]
    config: dict[str, Any]
    task: str = CLASSIFY
    group: str = "all-linear"
    resumes: bool = True
    tokenizer: dict[str, Any] | None = None
    says: str = ""


BERT = ("attention.self.query", "attention.self.value")
LLAMA = ("self_attn.q_proj", "self_attn.v_proj")
T5 = ("layer.0.SelfAttention.q", "layer.0.SelfAttention.v")
EXPERTS = "a mixture of experts: adapters go on attention, not on the experts."

FAMILIES = {
    "mpnet": Family("mpnet", ("attention.attn.q", "attention.attn.v"), ENCODER),
    "camembert": Family("camembert", BERT, ENCODER),
    "xlm-roberta, marking": Family("xlm-roberta", BERT, ENCODER, task=MARK),
    "deberta": Family("deberta", ("attention.self.in_proj",), ENCODER),
    "xlnet": Family(
        "xlnet", (), {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, group="mlp", resumes=False,
        tokenizer={"padding_side": "left"}, says="rel_attn.o and 5 more are in no linear module",
    ),
    "xlnet, marking": Family(
        "xlnet", (), {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, task=MARK, group="mlp", resumes=False
    ),
    "t5": Family(
        "t5", T5, {**BOTH, "decoder_start_token_id": 0}, resumes=False,
        says="adapters go on the encoder's layers, transformer.encoder.block; the decoder, transformer.decoder.block",
    ),
    "t5, marking": Family("t5", T5, BOTH, task=MARK, resumes=False),
    "mt5": Family("mt5", T5, {**BOTH, "decoder_start_token_id": 0}, resumes=False),
    "gemma": Family("gemma", LLAMA, HEADS),
    "gemma2, going on": Family("gemma2", LLAMA, HEADS, task=GO_ON),
    "gemma3": Family("gemma3_text", LLAMA, HEADS),
    "phi": Family("phi", LLAMA, DECODER),
    "phi3": Family("phi3", ("self_attn.qkv_proj",), DECODER, says="query+value is self_attn.qkv_proj in this model"),
    "mistral": Family("mistral", LLAMA, DECODER, task=MARK),
    "opt, going on": Family("opt", LLAMA, {**ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 32}, task=GO_ON),
    "granite, going on": Family("granite", LLAMA, DECODER, task=GO_ON),
    "olmo2": Family("olmo2", LLAMA, DECODER),
    "falcon": Family("falcon", ("self_attention.query_key_value",), ENCODER),
    "gpt-neox": Family("gpt_neox", ("attention.query_key_value",), ENCODER),
    "bloom": Family("bloom", ("self_attention.query_key_value",), GPT),
    "mixtral": Family("mixtral", LLAMA, MIXTURE, says=EXPERTS),
    "qwen2-moe": Family(
        "qwen2_moe", LLAMA, {**MIXTURE, "shared_expert_intermediate_size": 16},
        says="a mixture of experts: adapters go on attention and mlp.shared_expert, not on the experts.",
    ),
    "qwen3-moe, going on": Family("qwen3_moe", LLAMA, MIXTURE, task=GO_ON, says=EXPERTS),
    "gpt-oss, going on": Family("gpt_oss", LLAMA, MIXTURE, task=GO_ON, says=EXPERTS),
}  # fmt: skip


def save_model(folder: Path, family: Family) -> None:
    """A base with random weights, drawn wide, and its tokenizer."""
    tokens = save_tokenizer(folder, SPECIAL, **(family.tokenizer or {}))
    common = {"vocab_size": tokens, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
    config = AutoConfig.for_model(family.kind, **{**common, **family.config})
    torch.manual_seed(0)
    auto_class = AutoModelForCausalLM if family.task == GO_ON else AutoModel
    with quiet_libraries():
        auto_class.from_config(config).save_pretrained(folder)


def save_texts(path: Path, task: str) -> None:
    """16 texts of 2 to 9 words, each of a kind of its own."""
    draw = np.random.default_rng(0)
    lines = []
    for number in range(16):
        words = [*map(str, draw.choice(WORDS, 1 + number % 8)), f"w{number}"]
        tags = [("O", "B-A", "B-B")[int(word[1:]) % 3] for word in words]
        text = {"text": " ".join(words)}
        answer = {CLASSIFY: {**text, "label": "ab"[number % 2]}, MARK: {"tokens": words, "tags": tags}, GO_ON: text}
        lines.append(json.dumps(answer[task]) + "\n")
    path.write_text("".join(lines))


def prepared_family(family: Family, folder: Path, **search: Any) -> Prepared:
    save_model(folder / "base", family)
    save_texts(folder / "data.jsonl", family.task)
    targets = [family.group, *(["query+value"] if family.query_value else [])]
    return prepare(
        Experiment.model_validate(
            {
                "name": "families",
                "model": {"base": str(folder / "base"), "task": family.task},
                "data": {"train": str(folder / "data.jsonl")},
                "cv": {"folds": 2},
                "search": {"rank": [1, 3], "targets": targets, "layers": ["all", "top-1"], "trials": 1, **search},
                "training": {"epochs": 1, "batch_size": 4, "precision": "fp32"},
                "verdict": {"metric": METRICS[family.task], "extra_repeats": 0},
            }
        )
    )


def train(prepared: Prepared, cells: list[Cell], **settings: Any) -> tuple[Engine, list[Any]]:
    engine = Engine(
        prepared.base, prepared.data, prepared.experiment.training, EngineSettings(CPU, torch.float32, **settings)
    )
    return engine, engine.train(cells, pack=0)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_a_family_is_found_packed_cached_exported_and_reloaded(family: Family, tmp_path: Path) -> None:
    prepared = prepared_family(family, tmp_path)
    if family.query_value:
        modules = prepared.modules["query+value", "top-1"]
        assert sorted(module.leaf for module in modules) == sorted(family.query_value)
    assert any(family.says in note for note in prepared.notes)
    assert check_export(prepared) == ()

    wide = AdapterSpec(rank=3, alpha=6.0, targets=family.group, layers="top-1")
    narrow = AdapterSpec(rank=1, alpha=2.0, targets=family.group, layers="top-1")
    cells = [
        prepared.cell(CellKey(0, 0, 0), wide, Nuisance(learning_rate=1e-2)),
        prepared.cell(CellKey(1, 0, 1), narrow, Nuisance(learning_rate=5e-3, dropout=0.25)),
    ]
    engine, packed = train(prepared, cells, token_budget=40)
    assert engine.forward.resumes(1) == family.resumes
    assert not engine.split_packs
    for cell, ours in zip(cells, packed, strict=True):
        (alone,) = train(prepared, [cell], prefix_cache=False, token_budget=10**6, pooled_token=False)[1]
        assert ours.result.train_loss == pytest.approx(alone.result.train_loss, rel=TOLERANCE)
        np.testing.assert_allclose(ours.result.probabilities, alone.result.probabilities, rtol=1e-4, atol=TOLERANCE)
        for kind in ("lora_A", "lora_B"):
            one, other = (
                torch.cat([value.flatten() for name, value in trained.state.items() if name.endswith(kind)])
                for trained in (ours, alone)
            )
            assert other.abs().max() > 1e-3
            assert (one - other).norm() < TOLERANCE * other.norm()

    config = adapter_config(
        prepared.base.structure,
        cells[0].modules,
        cells[0].ranks,
        wide,
        cells[0].nuisance,
        prepared.experiment.model,
        inference=False,
    )
    assert config["task_type"] == PEFT_TYPES[family.task]
    theirs = get_peft_model(prepared.base.model, LoraConfig(**config))
    expected = adapter_parameters(cells[0].modules, 3) + prepared.base.structure.head_parameters
    assert theirs.get_nb_trainable_parameters()[0] == expected


def test_biases_that_no_adapted_module_has_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'search.bias: must be "none" for a model whose adapted modules have no bias'):
        prepared_family(FAMILIES["mistral"], tmp_path, bias="lora_only")
