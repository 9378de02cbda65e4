"""Positions: how many tokens each kind of model can read, checked against the model itself."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from transformers import (
    LongformerConfig,
    LongformerForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from lora_search.models import position_limit, positions_follow_padding


@pytest.mark.parametrize(
    ("model_type", "settings", "limit"),
    [
        ("bert", {"max_position_embeddings": 20}, 20),
        ("roberta", {"max_position_embeddings": 20, "pad_token_id": 1}, 18),
        ("roberta", {"max_position_embeddings": 20, "pad_token_id": 0}, 19),
        ("xlm-roberta", {"max_position_embeddings": 20, "pad_token_id": 1}, 18),
        ("mpnet", {"max_position_embeddings": 20, "pad_token_id": 1}, 18),
        ("gpt2", {"n_positions": 20}, 20),
        ("opt", {"max_position_embeddings": 20}, 20),
        ("distilbert", {"max_position_embeddings": 20}, 20),
    ],
)
def test_a_text_of_the_limit_can_be_read_and_a_longer_one_not(model_type: str, settings: dict, limit: int) -> None:
    sizes = {} if model_type not in ("xlm-roberta", "mpnet") else {
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}  # fmt: skip
    model = tiny_model(model_type, **sizes, **settings).eval()
    assert position_limit(model) == limit
    with torch.no_grad():
        model(input_ids=torch.full((1, limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize(
    ("model_type", "follow"), [("bert", False), ("roberta", True), ("gpt2", False), ("llama", False)]
)
def test_whose_positions_follow_the_padding(model_type: str, follow: bool) -> None:
    assert positions_follow_padding(tiny_model(model_type)) is follow


def test_rotary_positions_have_the_declared_limit_and_relative_ones_none() -> None:
    assert position_limit(tiny_model("llama", max_position_embeddings=77)) == 77
    small = {"vocab_size": 40, "n_layer": 2, "n_head": 2, "d_inner": 64}
    assert position_limit(XLNetForSequenceClassification(XLNetConfig(d_model=32, **small))) is None


def test_longformer_counts_from_its_padding() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = LongformerConfig(
        vocab_size=40, attention_window=[8], max_position_embeddings=26, pad_token_id=1, type_vocab_size=1, **small
    )
    model = LongformerForSequenceClassification(config)
    assert position_limit(model) == 24
    assert positions_follow_padding(model)
