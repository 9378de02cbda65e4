"""Tiny base models with tokenizers, tiny data, and studies over them."""

import csv
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Model,
    LlamaModel,
    PreTrainedTokenizerFast,
    RobertaModel,
)

from lora_search import Experiment, run_study

LABELS = ("apple pie", "banana", "cherry")
WORDS = {
    "apple pie": ["red", "crisp", "orchard", "cider"],
    "banana": ["yellow", "soft", "peel", "monkey"],
    "cherry": ["dark", "stone", "blossom", "sour"],
}
COMMON = ["the", "a", "very", "fruit", "was", "is", "and", "we", "ate", "it", "today", "un", "##ripe", "##ly"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = [*SPECIAL, *COMMON, *(word for words in WORDS.values() for word in words)]

_ENCODER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_WIDE = {"initializer_range": 0.2}


@dataclass(frozen=True)
class TinyModel:
    model_class: type
    config: dict
    arguments: dict = field(default_factory=dict)
    experiment: dict = field(default_factory=dict)


MODELS = {
    "bert": TinyModel(BertModel, _ENCODER),
    # a checkpoint without a pooler: it is trained, and exported
    "bert-without-pooler": TinyModel(
        BertModel, _ENCODER, {"add_pooling_layer": False}, {"scaling": "rslora", "layers": ["top-2"], "dropout": [0.1]}
    ),
    # somebody's classifier of two labels
    "bert-with-classifier": TinyModel(BertForSequenceClassification, {**_ENCODER, "num_labels": 2}),
    "roberta": TinyModel(RobertaModel, {**_ENCODER, "pad_token_id": 0}, {}, {"targets": ["all-linear"]}),
    "gpt2": TinyModel(GPT2Model, {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}, {}, {"layers": ["1,2"]}),
    "llama": TinyModel(LlamaModel, {**_ENCODER, "num_key_value_heads": 2}, {}, {"alpha_over_rank": [1.3]}),
}


def save_base(folder, kind):
    """A base without classifier, with random weights, and its tokenizer."""
    known = MODELS[kind]
    sizes = {"vocab_size": len(VOCABULARY), **_WIDE, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(kind.split("-")[0], **{**sizes, **known.config})
    torch.manual_seed(0)
    known.model_class(config, **known.arguments).save_pretrained(folder)
    _tokenizer(pad=kind not in ("gpt2", "llama")).save_pretrained(folder)
    return folder


def _tokenizer(pad):
    """WordPiece as BERT has it; decoders come without a padding token, as GPT-2 does."""
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    if pad:
        special["pad_token"] = "[PAD]"
        inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=48, **special)


def save_data(path, pairs=False):
    """60 sentences; a third of the words of each tell its label. The quoted ones have commas and line breaks."""
    generator = torch.Generator().manual_seed(7)

    def pick(words):
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", *(["second"] if pairs else [])])
        for number in range(60):
            label = LABELS[number % 3]
            words = [pick(WORDS[label] if place % 3 == 0 else COMMON[:11]) for place in range(3 + number % 9)]
            text = " ".join([*words, f"x{number}"]) + (",\n“unripe”" if number % 5 == 0 else "")
            writer.writerow([text, label, *([f"{pick(WORDS[label])} {pick(COMMON[:11])}"] if pairs else [])])
    return path


def tiny_experiment(base, data, name="fruit", **search):
    """Two trials, two folds, one epoch, and a hold-out."""
    text_pair = search.pop("text_pair", None)
    holdout = search.pop("holdout", 0.2)
    choices = {"rank": [2, 4], "targets": ["query+value"], "layers": ["all"], "learning_rate": 2e-2, "trials": 2}
    return Experiment(
        name=name,
        model={"base": str(base)},
        data={"train": str(data), "holdout": holdout, "max_length": 24, "text_pair": text_pair},
        cv={"folds": 2},
        search={**choices, "alpha_over_rank": [2], **search},
        training={"epochs": 1, "batch_size": 8, "precision": "fp32"},
        verdict={"metric": "accuracy"},
    )


def run_tiny_study(results, base, data, **search):
    return run_study(tiny_experiment(base, data, **search), results, progress=False)
