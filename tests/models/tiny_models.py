"""Tiny classifiers of twelve architectures, and what is known of each from its source."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_search.models.base import structure_from_config
from lora_search.tasks import task_of

_BERT_LIKE = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
_DECODER = {**_BERT_LIKE, "num_key_value_heads": 2}


@dataclass(frozen=True)
class Known:
    config: dict
    stack: str
    query_value: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    head: tuple[str, ...]
    saved: tuple[str, ...]


_BERT_BLOCK = {
    "query_value": ("attention.self.query", "attention.self.value"),
    "attention": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "mlp": ("intermediate.dense", "output.dense"),
}
_LLAMA_LIKE = {
    "stack": "model.layers",
    "query_value": ("self_attn.q_proj", "self_attn.v_proj"),
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "head": ("score",),
    "saved": ("score",),
}
_DENSE_HEAD = {"head": ("classifier.dense", "classifier.out_proj"), "saved": ("classifier",)}

KNOWN = {
    "bert": Known(_BERT_LIKE, "bert.encoder.layer", **_BERT_BLOCK, head=("classifier",), saved=("classifier",)),
    "roberta": Known(_BERT_LIKE, "roberta.encoder.layer", **_BERT_BLOCK, **_DENSE_HEAD),
    "electra": Known(
        {**_BERT_LIKE, "embedding_size": 16},
        "electra.encoder.layer",
        **_BERT_BLOCK,
        **_DENSE_HEAD,
    ),
    "distilbert": Known(
        {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 48},
        "distilbert.transformer.layer",
        query_value=("attention.q_lin", "attention.v_lin"),
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        mlp=("ffn.lin1", "ffn.lin2"),
        head=("pre_classifier", "classifier"),
        saved=("pre_classifier", "classifier"),
    ),
    "deberta-v2": Known(
        _BERT_LIKE,
        "deberta.encoder.layer",
        query_value=("attention.self.query_proj", "attention.self.value_proj"),
        attention=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
        ),
        mlp=("intermediate.dense", "output.dense"),
        head=("pooler.dense", "classifier"),
        saved=("pooler", "classifier"),
    ),
    "modernbert": Known(
        {**_BERT_LIKE, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        "model.layers",
        query_value=("attn.Wqkv",),
        attention=("attn.Wqkv", "attn.Wo"),
        mlp=("mlp.Wi", "mlp.Wo"),
        head=("head.dense", "head.norm", "classifier"),
        saved=("head", "classifier"),
    ),
    "gpt2": Known(
        {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2},
        "transformer.h",
        query_value=("attn.c_attn",),
        attention=("attn.c_attn", "attn.c_proj"),
        mlp=("mlp.c_fc", "mlp.c_proj"),
        head=("score",),
        saved=("score",),
    ),
    "llama": Known(_DECODER, **_LLAMA_LIKE),
    "qwen2": Known(_DECODER, **_LLAMA_LIKE),
    "qwen3": Known({**_DECODER, "head_dim": 16}, **_LLAMA_LIKE),
    "opt": Known(
        {
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 16,
        },
        "model.decoder.layers",
        query_value=("self_attn.v_proj", "self_attn.q_proj"),
        attention=("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"),
        mlp=("fc1", "fc2"),
        head=("score",),
        saved=("score",),
    ),
    "gpt_neo": Known(
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "transformer.h",
        query_value=("attn.attention.v_proj", "attn.attention.q_proj"),
        attention=(
            "attn.attention.k_proj",
            "attn.attention.v_proj",
            "attn.attention.q_proj",
            "attn.attention.out_proj",
        ),
        mlp=("mlp.c_fc", "mlp.c_proj"),
        head=("score",),
        saved=("score",),
    ),
}


def tiny_config(model_type, **settings):
    arguments = {"vocab_size": 64, "pad_token_id": 0, "num_labels": 3}
    if model_type in KNOWN:
        arguments |= KNOWN[model_type].config
    return AutoConfig.for_model(model_type, **{**arguments, **settings})


def tiny_model(model_type, device="cpu", **settings):
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForSequenceClassification.from_config(tiny_config(model_type, **settings))


def head_of(*labels):
    """The head that tells these labels apart."""
    return task_of("text-classification").head(labels)


def structure_from(config):
    """The structure of a classifier, without weights."""
    return structure_from_config(config, head_of("no", "yes"))
