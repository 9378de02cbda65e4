"""The promises of the engine on a GPU: the same as on a CPU, alone, packed and cached. Left out where there is none."""

import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_builders import FAMILIES, frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data
from test_training_contract import ALONE, cells_of, data_of, difference, train, trained_alone

from lora_search.training import frozen_forward

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")

GPU = torch.device("cuda")
TOLERANCE = 1e-4
"""Twenty steps apart, of kernels that add in other orders."""
WAYS = {
    "alone": None,
    "packed": ALONE,
    "packed, micro-batched, cached, pooled": {"prefix_cache": True, "token_budget": 150},
    "checkpointed": {"prefix_cache": True, "token_budget": 150, "checkpointing": True},
}


@pytest.fixture
def exact_products(monkeypatch):
    """Products in float32, not in TF32, which rounds to three digits."""
    monkeypatch.setattr(frozen_forward, "fast_products", lambda device, dtype: nullcontext())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.usefixtures("exact_products")
def test_every_way_gives_what_a_cpu_gives(model, way):
    cells, chosen = cells_of(model), WAYS[way]
    if chosen is None:
        found = [train(model, [cell], **ALONE, device=GPU)[1][0] for cell in cells]
    else:
        found = train(model, cells, **chosen, device=GPU)[1]
    for there, here in zip(trained_alone(model), found, strict=True):
        assert here.steps == there.steps
        assert here.loss == pytest.approx(there.loss, rel=TOLERANCE)
        here.weights = {name: weight.cpu() for name, weight in here.weights.items()}
        here.gradients = {name: gradient.cpu() for name, gradient in here.gradients.items()}
        assert difference(here.gradients, there.gradients) < TOLERANCE
        assert difference(here.weights, there.weights) < 10 * TOLERANCE
        np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_bf16_comes_close_to_fp32(model):
    _, found = train(model, cells_of(model), device=GPU, dtype=torch.bfloat16)
    for there, here in zip(trained_alone(model), found, strict=True):
        assert here.loss == pytest.approx(there.loss, rel=0.05)
        np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=0, atol=0.1)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("model", ["nf4 bert", "nf4 llama"])
def test_a_base_in_4_bits_is_the_same_base_on_a_gpu(model):
    """Its codes are made on the CPU and moved; bitsandbytes' kernels multiply with them in an order of their own."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'lora-search[quantized]')")
    for way in (ALONE, WAYS["packed, micro-batched, cached, pooled"]):
        _, found = train(model, cells_of(model), **way, device=GPU)
        for there, here in zip(trained_alone(model), found, strict=True):
            assert here.loss == pytest.approx(there.loss, rel=10 * TOLERANCE)
            np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=0, atol=10 * TOLERANCE)
    _, found = train(model, cells_of(model), device=GPU, dtype=torch.bfloat16)
    for there, here in zip(trained_alone(model), found, strict=True):
        assert here.loss == pytest.approx(there.loss, rel=0.05)
        np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=0, atol=0.1)


def test_a_gpu_is_never_waited_for_within_a_step():
    base, data = tiny_base("bert"), data_of("bert")
    engine = make_engine(base, data, device=GPU)
    cells = [make_cell(base, trial, rank=2 + trial, drop=0.1 * trial) for trial in range(3)]
    engine.train(cells, pack=0)
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            engine.train(cells, pack=1)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in waits)
    assert sum(places.values()) < 200, places
    print(places)


def test_a_decoder_with_grouped_heads_as_wide_as_kernels_want_them():
    """Fused kernels, which narrow heads do not get, take shapes at their word."""
    shape = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = frozen(tiny_model("llama", **shape))
    data = toy_data()
    engine = make_engine(base, data, device=GPU, dtype=torch.bfloat16)
    (cell,) = engine.train([make_cell(base)], pack=0)
    assert cell.result.state == "complete"
    assert engine.forward.pooled is not None
