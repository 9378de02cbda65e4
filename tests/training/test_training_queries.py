"""Attention from one token of a row: what that token finds, and its gradients, are those of the whole attention."""

import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lora_search.training.attention import short_attention
from lora_search.training.queries import CheckedAttention, OneQuery

LENGTHS = torch.tensor([5, 3, 1])
TOKENS = 5
PLACES = {"first": torch.zeros(3, dtype=torch.int64), "last": LENGTHS - 1}


def padding() -> torch.Tensor:
    return (torch.arange(TOKENS) < LENGTHS[:, None])[:, None, None]


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "padding": {"attn_mask": padding()},
    "square": {"attn_mask": padding() & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()},
    "shared": {"attn_mask": torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()},
    "bias": {"attn_mask": torch.randn(3, 2, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1))},
}


class Watched(TorchFunctionMode):
    """Notes how many queries attention is computed for."""

    def __init__(self):
        super().__init__()
        self.queries = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.scaled_dot_product_attention, short_attention):
            self.queries.append(args[0].shape[2])
        return func(*args, **(kwargs or {}))


def attended(attention, places, options):
    """What the token of each row finds, and the gradients of its queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 2, TOKENS, 4, generator=generator, requires_grad=True) for _ in range(3)]
    found = attention(*inputs, **options)[torch.arange(3), :, places]
    found.square().sum().backward()
    return [found.detach(), *(each.grad for each in inputs)]


@pytest.mark.parametrize("attention", [F.scaled_dot_product_attention, short_attention])
@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("position", PLACES)
def test_one_query_finds_what_it_finds_among_all(attention, options, position):
    places = PLACES[position]
    expected = attended(attention, places, options)
    with OneQuery(None if position == "first" else places) as queries:
        ours = attended(attention, places, options)
    assert queries.attended
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("position", PLACES)
def test_it_is_computed_for_no_other(position):
    query = torch.randn(3, 2, TOKENS, 4)
    places = PLACES[position]
    with Watched() as watched, OneQuery(None if position == "first" else places):
        found = F.scaled_dot_product_attention(query, query, query)
    assert watched.queries == [1]
    assert found.shape == query.shape
    others = torch.arange(TOKENS)[None] != places[:, None]
    assert not found.transpose(1, 2)[others].any()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_last_layer_attends_from_one_token_in_training(family, precision):
    base = tiny_base(family)
    engine = make_engine(base, toy_data(), dtype=precision, prefix_cache=False)
    with Watched() as watched:
        engine.train([make_cell(base)], 0)
    layers = base.structure.layer_count
    assert set(watched.queries[layers - 1 :: layers]) == {1}
    for lower in range(layers - 1):
        assert 1 not in watched.queries[lower::layers]
    assert not any("forward" in vars(module) for module in engine.forward.model.modules())


@pytest.mark.parametrize(
    ("shapes", "mask"),
    [
        (((2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 1, 8)), None),
        (((2, 4, 1, 8), (2, 4, 1, 8), (2, 4, 1, 8)), (2, 1, 5, 5)),
        (((2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 5, 8)), (3, 1, 5, 5)),
        (((2, 4, 5, 8), (1, 4, 5, 8), (1, 4, 5, 8)), None),
    ],
)
def test_what_does_not_belong_together_reaches_no_kernel(shapes, mask):
    tensors = [torch.ones(shape) for shape in shapes]
    kept = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with CheckedAttention(), pytest.raises(ValueError, match="do not belong together"):
        F.scaled_dot_product_attention(*tensors, attn_mask=kept)


@pytest.mark.parametrize("mask", [None, (2, 1, 3, 5), (1, 1, 1, 5), (3, 5), (2, 4, 3, 1)])
def test_what_belongs_together_is_computed(mask):
    query, key = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8)
    kept = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with CheckedAttention():
        checked = F.scaled_dot_product_attention(query, key, key, attn_mask=kept)
    torch.testing.assert_close(checked, F.scaled_dot_product_attention(query, key, key, attn_mask=kept))
