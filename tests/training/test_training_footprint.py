"""What a step holds: each storage once, the weights never, and nothing of it afterwards."""

import gc
import weakref

import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data
from torch import nn

from lora_search.training.footprint import kept_for_backward
from lora_search.training.whole import WholeModel


def test_what_is_kept_by_hand():
    """The linear map keeps what it reads, tanh what it makes, of 24 numbers each; the sum keeps nothing."""
    linear = nn.Linear(6, 6)
    with kept_for_backward(linear.parameters()) as kept:
        torch.tanh(linear(torch.ones(4, 6))).sum()
    assert kept.bytes == 2 * 24 * 4


def test_counting_keeps_nothing_alive():
    linear, seen = nn.Linear(6, 6), []
    with kept_for_backward(linear.parameters()):
        h = torch.ones(4, 6)
        for _ in range(3):
            h = torch.tanh(linear(h))
            seen.append(weakref.ref(h))
        del h
    gc.collect()
    assert [each() for each in seen] == [None] * 3


def test_a_step_that_was_measured_leaves_nothing_behind():
    base, data = tiny_base("bert"), toy_data()
    whole, seen = WholeModel(make_engine(base, data), "full"), []
    for module in whole.model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    whole.step_bytes(make_cell(base))
    gc.collect()
    assert len(seen) > 3
    assert not any(each() is not None for each in seen)
