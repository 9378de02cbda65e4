"""What benchmarks say a training computes is what it computes."""

import sys
from pathlib import Path

import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data

from lora_search.adapters.layers import PackedLora

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments/benchmarks"))

from flops import Flops, Work, pack_flops, product_flops


def counted(monkeypatch, base):
    """Operations of the products of frozen modules from now on, as a list of [forward, input gradient]."""
    count = [0, 0]
    frozen = {id(base.model.get_submodule(module.name).weight) for module in base.structure.linear_modules}
    linear, gradient = torch.nn.functional.linear, PackedLora.frozen_input_gradient

    def forward(x, weight, bias=None):
        count[0] += 2 * x.numel() * weight.shape[0] * (id(weight) in frozen)
        return linear(x, weight, bias)

    def backward(module, g):
        count[1] += 2 * g.numel() * module.frozen.in_features
        return gradient(module, g)

    monkeypatch.setattr(torch.nn.functional, "linear", forward)
    monkeypatch.setattr(PackedLora, "frozen_input_gradient", backward)
    return count


def work_of(cells, data, epochs):
    trained = [int(data.lengths[cell.train].sum()) * epochs for cell in cells]
    return Work(
        sum(trained),
        sum(len(cell.train) * epochs for cell in cells),
        sum(int(data.lengths[cell.evaluate].sum()) for cell in cells),
        sum(len(cell.evaluate) for cell in cells),
    )


@pytest.mark.parametrize("layers", ["all", "top-2", "top-1"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_pack_is_counted_as_it_is_computed(monkeypatch, family, layers):
    base, data = tiny_base(family), toy_data(longest=2)  # all of one length: no padding is computed
    cells = [make_cell(base, trial, fold=trial, targets="all-linear", layers=layers) for trial in range(2)]
    lowest = cells[0].depth(3)
    engine = make_engine(base, data, epochs=3)
    assert engine.forward.prefix.prepare(lowest)
    count = counted(monkeypatch, base)
    engine.train(cells, 0)
    expected = pack_flops(engine, work_of(cells, data, 3), lowest, cached_tokens=0)
    assert count == [expected.forward, expected.input_gradient]


def test_a_training_of_every_layer_in_full_is_counted_as_it_is_computed(monkeypatch):
    base, data = tiny_base("llama"), toy_data(longest=2)
    cells = [make_cell(base, targets="all-linear")]
    engine = make_engine(base, data, epochs=3, prefix_cache=False, pooled_token=False)
    assert engine.forward.prefix.prepare(0)  # which says what comes first
    count = counted(monkeypatch, base)
    engine.train(cells, 0)
    first = engine.forward.prefix.kept_modules(0)
    assert {name.rpartition(".")[2] for name in first} == {"q_proj", "k_proj", "v_proj"}
    expected = product_flops(base.structure.linear_modules, work_of(cells, data, 3), first=first)
    assert count == [expected.forward, expected.input_gradient]


def test_what_is_cached_is_counted_once():
    base = tiny_base("bert")
    work = Work(trained_tokens=100, trained_rows=10, predicted_tokens=40, predicted_rows=4)
    modules = base.structure.linear_modules
    square, wide = 2 * 32 * 32, 2 * 32 * 48
    # three layers of four square and two wide modules
    assert product_flops(modules, work) == Flops(140 * 3 * (4 * square + 2 * wide), 100 * 3 * (4 * square + 2 * wide))
    first = [f"bert.encoder.layer.1.attention.self.{name}" for name in ("query", "key", "value")]
    cached = product_flops(modules, work, lowest=1, first=first, cached=first[:2], cached_tokens=7)
    assert cached == Flops(
        7 * (4 * square + 2 * wide) + 7 * 2 * square + 140 * (6 * square + 4 * wide),
        100 * (5 * square + 4 * wide),
    )
    spared = [f"bert.encoder.layer.2.{name}.dense" for name in ("intermediate", "output")]
    assert product_flops(modules, work, lowest=2, spared=spared).forward == (
        140 * (12 * square + 4 * wide) + 14 * 2 * wide
    )
    assert Flops(3, 4).total == 7
