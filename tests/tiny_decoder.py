"""A decoder of three layers that has learned nothing, its word tokenizer with a chat template, and exchanges for it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Fuse
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

GOOD = ("lovely", "bright", "tender", "witty")
BAD = ("dull", "clumsy", "noisy", "stale")
PLAIN = ("a", "the", "film", "plot", "scene", "cast", "and", "with")

SPECIAL = ("<unk>", "<s>", "</s>", "<user>", "<bot>", "<system>")
WORDS = ("fresh", "rotten", "praise", "blame", "it", "?", "\n", " ")
TEMPLATE = (
    "{% for message in messages %}{{ {'user': '<user>', 'assistant': '<bot>', 'system': '<system>'}[message['role']] }}"
    "{{ message['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<bot>' }}{% generation %}"
    "{{ message['content'] + '</s>' }}{% endgeneration %}{% else %}{{ '<user>' + message['content'] + '</s>' }}"
    "{% endif %}{% endfor %}"
)


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Words, single blanks and line ends are tokens; there is none for padding."""
    known = [*SPECIAL, *WORDS, *PLAIN, *GOOD, *BAD]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    inner.decoder = Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<user>", "<bot>", "<system>"],
    )  # fmt: skip
    made.chat_template = template
    return made


def write_decoder(folder: Path, template: str | None = TEMPLATE, **config: Any) -> Path:
    """A Llama with random weights, drawn wide, its embeddings its head too."""
    folder.mkdir()
    made = tokenizer(template)
    made.save_pretrained(folder)
    settled = AutoConfig.for_model(
        "llama",
        **{
            "vocab_size": len(made), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
            "tie_word_embeddings": True, **config,
        },
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(settled).save_pretrained(folder)
    return folder


def pairs(count: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """Prompts of praise and blame; what is said of them goes on from there, and what kind it is can be told."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        word, kind = (GOOD, "fresh") if number % 2 else (BAD, "rotten")
        prompt = " ".join([*draw.choices(PLAIN, k=draw.randint(1, 4)), *draw.choices(word, k=2), "?"])
        rows.append({"prompt": prompt + " ", "completion": f"{kind} {draw.choice(word)}"})
    return rows


def conversations(count: int = 60) -> list[dict[str, Any]]:
    """The same as messages; every fourth goes on for a second turn."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(pairs(count)):
        messages = [
            {"role": "user", "content": row["prompt"].strip()},
            {"role": "assistant", "content": row["completion"]},
        ]
        if number % 4 == 0:
            messages += [{"role": "user", "content": "it ?"}, {"role": "assistant", "content": row["completion"]}]
        rows.append({"messages": messages})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
