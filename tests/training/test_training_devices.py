"""The engine on every device this machine has: what a GPU computes is what a CPU computes."""

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data

DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
FAMILIES = ("bert", "gpt2", "llama")
CLOSE = {torch.float32: 5e-3, torch.bfloat16: 0.1}
"""A GPU multiplies float32 in TF32, of 10 bits; bf16 has 8."""


def cells_of(base):
    return [
        make_cell(base, 0, rank=2, targets="query+value", layers="top-2", rate=1e-3, drop=0.2),
        make_cell(base, 1, rank=5, targets="all-linear", layers="top-2", rate=1e-3),
        make_cell(base, 2, fold=1, rank=3, targets="attention", layers="top-1", rate=1e-3),
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_comes_to_the_same_on_every_device(device, dtype, family):
    base, data = tiny_base(family), toy_data()
    expected = [make_engine(base, data).train([cell], 0)[0] for cell in cells_of(base)]
    engine = make_engine(base, data, device=torch.device(device), dtype=dtype)
    for ours, theirs in zip(engine.train(cells_of(base), 0), expected, strict=True):
        assert ours.result.state == "complete"
        assert ours.result.train_loss == pytest.approx(theirs.result.train_loss, abs=CLOSE[dtype])
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=CLOSE[dtype])
