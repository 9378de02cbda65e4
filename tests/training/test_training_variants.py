"""Adapters of several kinds in one pack, in every way of computing: each trained as alone."""

import pytest
from engine_builders import assert_same_training, make_cell, make_engine, of_keys, tiny_base, toy_data

RATIO = 4.0


def cells_of(base):
    """A DoRA that drops, one with biases, a LoRA with biases, an rsLoRA, a plain LoRA that drops, and a DoRA that
    drops and whose ranks differ."""
    return [
        make_cell(base, 0, rank=2, layers="top-1", rate=5e-3, drop=0.25, use_dora=True),
        make_cell(base, 1, rank=4, targets="all-linear", layers="top-2", use_dora=True, bias="lora_only"),
        make_cell(base, 2, fold=1, rank=1, targets="mlp", layers="top-2", first=10, bias="lora_only"),
        make_cell(base, 3, rank=3, targets="all-linear", layers="top-1", scaling="rslora"),
        make_cell(base, 4, rank=1, targets="attention", layers="top-1", drop=0.5),
        make_cell(base, 5, rank=3, targets="all-linear", layers="top-2", drop=0.2, use_dora=True, rank_pattern="mlp:2"),
    ]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_whatever_their_kinds_cells_are_trained_as_alone(family):
    base, data = tiny_base(family), toy_data()
    cells = cells_of(base)
    together = make_engine(base, data, loraplus_lr_ratio=RATIO, token_budget=90, lanes=2).train(cells, pack=0)
    for cell, packed in zip(cells, together, strict=True):
        engine = make_engine(
            base, data, loraplus_lr_ratio=RATIO, token_budget=10**6, prefix_cache=False, pooled_token=False
        )
        (alone,) = engine.train([cell], pack=0)
        assert packed.state.keys() == alone.state.keys()
        for name in packed.state:
            packed.state[name][of_keys(name)] = alone.state[name][of_keys(name)]
        assert_same_training(packed, alone)


def test_what_is_no_adapter_learns_at_one_rate():
    """The head alone, a baseline, is what it was before there was LoRA+."""
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base)
    alone = type(cell)(**{**vars(cell), "modules": ()})
    (plain,), (plus,) = (make_engine(base, data, loraplus_lr_ratio=r).train([alone], 0) for r in (1.0, 16.0))
    for name, value in plain.state.items():
        assert (plus.state[name] == value).all()
