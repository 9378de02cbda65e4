"""A bf16 base: close to float32, adapters and heads in float32, the original untouched."""

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data
from torch.nn.functional import scaled_dot_product_attention

from lora_search.errors import MachineError
from lora_search.training import choose_dtype, frozen_forward, precision
from lora_search.training.attention import _attention
from lora_search.training.precision import fast_products, in_precision, same_device

CPU, BF16 = torch.device("cpu"), torch.bfloat16
FAMILIES = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert", "gpt2", "llama", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bf16_base_trains_to_nearly_the_same(family):
    base, data = tiny_base(family), toy_data()
    cells = [
        make_cell(base, 0, targets="all-linear", layers="top-2", rate=1e-3),
        make_cell(base, 1, rank=2, layers="top-1", rate=1e-3),
    ]
    full = make_engine(base, data).train(cells, 0)
    engine = make_engine(base, data, dtype=BF16)
    half = engine.train(cells, 0)
    assert engine.forward.prefix.note is None
    assert {p.dtype for p in engine.forward.model.parameters()} == {BF16}
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}
    for ours, theirs in zip(half, full, strict=True):
        assert {value.dtype for value in ours.state.values()} == {torch.float32}
        # bf16 has 8 bits: a relative 0.4 % per operation, some dozens of them in a row
        assert np.abs(ours.result.probabilities - theirs.result.probabilities).mean() < 0.02
        assert ours.result.train_loss == pytest.approx(theirs.result.train_loss, rel=0.02)
        for name, value in ours.state.items():
            if not name.endswith(("lora_A", "lora_B")):
                torch.testing.assert_close(value, theirs.state[name], rtol=0.05, atol=0.01)


def test_packed_and_alone_agree_in_bf16_too():
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, trial, rank=1 + trial, layers="top-2", rate=1e-3, drop=0.2) for trial in range(3)]
    together = make_engine(base, data, dtype=BF16).train(cells, 0)
    for ours, cell in zip(together, cells, strict=True):
        alone = make_engine(base, data, dtype=BF16, prefix_cache=False, token_budget=100).train([cell], 0)[0]
        assert np.abs(ours.result.probabilities - alone.result.probabilities).max() < 0.03


@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_rotary_frequencies_stay_exact(family):
    model = tiny_model(family)
    half = in_precision(model, BF16, CPU)
    frequencies = {name: buffer for name, buffer in model.named_buffers() if "inv_freq" in name}
    assert frequencies
    for name, buffer in frequencies.items():
        assert torch.equal(half.get_buffer(name), buffer)


def test_float32_on_its_own_device_is_the_model_itself():
    model = tiny_model("bert")
    assert in_precision(model, torch.float32, CPU) is model
    assert in_precision(model, torch.float32, torch.device("cpu:0")) is model


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    first, second, current = (torch.device(name) for name in ("cuda:0", "cuda:1", "cuda"))
    assert same_device(current, second)
    assert same_device(second, current)
    assert not same_device(current, first)
    assert not same_device(first, torch.device("cpu:0"))


@pytest.mark.parametrize(
    ("device", "dtype", "inside"),
    [("cuda", torch.float32, "high"), ("cuda", BF16, "highest"), ("cpu", torch.float32, "highest")],
)
def test_products_are_in_tf32_on_a_gpu_inside_the_block_alone(device, dtype, inside):
    assert torch.get_float32_matmul_precision() == "highest"
    with fast_products(torch.device(device), dtype):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"


def test_an_engine_trains_and_predicts_with_fast_products_and_makes_its_checks_without(monkeypatch):
    base, seen = frozen(tiny_model("bert")), []
    monkeypatch.setattr(
        frozen_forward, "fast_products", lambda device, dtype: fast_products(torch.device("cuda"), dtype)
    )
    module = base.model.bert.encoder.layer[2].output  # of which no stand-in is made
    module.register_forward_pre_hook(lambda m, args: seen.append(torch.get_float32_matmul_precision()))
    engine, cell = make_engine(base, toy_data()), make_cell(base, layers="top-1")
    assert engine.forward.prefix.prepare(2)
    assert set(seen) == {"highest"}
    seen.clear()
    engine.predict(cell, engine.train([cell], 0)[0].state, cell.evaluate)
    assert set(seen) == {"high"}


def test_precision_is_what_was_asked_or_measured():
    assert choose_dtype("fp32", CPU, 64) == torch.float32
    assert choose_dtype("bf16", CPU, 64) == BF16


@pytest.fixture
def clock(monkeypatch):
    """Has products and layers take what is asked for; notes what was computed."""

    class Clock:
        now, calls = 0.0, []

        def takes(self, name, seconds):
            def work(width, dtype):
                def run():
                    assert torch.get_num_threads() == 1
                    self.calls.append((name, width))
                    self.now += seconds(len(self.calls), dtype)

                return run

            monkeypatch.setattr(precision, name, work)

    clock = Clock()
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock.now)
    return clock


@pytest.mark.parametrize(
    ("product", "layer", "expected"),
    [(0.2, 0.5, BF16), (0.2, 0.9, torch.float32), (0.9, 0.5, torch.float32), (4.0, 0.5, torch.float32)],
)
def test_auto_takes_bf16_where_a_product_and_a_layer_of_the_width_are_clearly_faster(clock, product, layer, expected):
    clock.takes("_product", lambda call, dtype: product if dtype == BF16 else 1.0)
    clock.takes("_layer_step", lambda call, dtype: layer if dtype == BF16 else 1.0)
    assert choose_dtype("auto", CPU, 64) == expected
    assert {name for name, _ in clock.calls} == {"_product", *(["_layer_step"] if product < 0.5 else [])}
    assert {width for _, width in clock.calls} == {64}


def test_what_else_runs_for_a_while_does_not_decide_the_precision(clock):
    """Slow as long as another process runs, which ends during the measurement."""
    clock.takes("_product", lambda call, dtype: 16.0 if call <= 10 else {torch.float32: 2.0, BF16: 4.0}[dtype])
    threads = torch.get_num_threads()
    assert choose_dtype("auto", CPU, 64) == torch.float32
    assert torch.get_num_threads() == threads
    assert len(clock.calls) > 10


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_what_is_timed_is_a_layer_forward_and_back(dtype):
    (gradient,) = precision._layer_step(16, dtype)()
    assert gradient.dtype == dtype
    assert gradient.shape[-1] == 16


def test_bf16_is_refused_where_there_is_none(monkeypatch):
    # an old GPU emulates it
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    cuda = torch.device("cuda")
    assert choose_dtype("auto", cuda, 64) == torch.float32
    with pytest.raises(
        MachineError, match=r"training\.precision: must be fp32 on this GPU, which has no bf16, got bf16"
    ):
        choose_dtype("bf16", cuda, 64)


def fails_in_bf16():
    tiny = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 32}
    return frozen(tiny_model("fnet", **tiny))


def test_a_model_that_fails_in_bf16_is_an_error_the_user_can_act_on():
    base = fails_in_bf16()
    message = (
        r"training\.precision: must be fp32 for FNetForSequenceClassification, whose own code fails in bf16, got bf16"
    )
    with pytest.raises(MachineError, match=message):
        make_engine(base, toy_data(types=True), dtype=BF16, precision="bf16")


def test_auto_runs_a_model_that_fails_in_bf16_in_fp32_and_says_so():
    base, data = fails_in_bf16(), toy_data(types=True)
    engine = make_engine(base, data, dtype=BF16, lanes=2)
    assert engine.settings.dtype == torch.float32
    assert engine.forward.model is base.model
    assert engine.forward.pooled_layer.model is engine.forward.model
    assert engine.notes[0] == "FNetForSequenceClassification runs in fp32: its own code fails in bf16"
    cell = make_cell(base, layers="top-1", targets="all-linear", rate=1e-3)
    fallen = engine.train([cell], 0)[0]
    asked = make_engine(base, data, precision="fp32", lanes=2).train([cell], 0)[0]
    assert np.array_equal(fallen.result.probabilities, asked.result.probabilities)


class Plain(torch.nn.Module):
    is_causal = False


class Causal(torch.nn.Module):
    is_causal = True
    num_key_value_groups = 2


def inputs(key_heads):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 6, 8), (2, key_heads, 6, 8), (2, key_heads, 6, 8))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


PADDED = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=torch.bool)[:, None, None].expand(2, 1, 6, 6)
MASKS = {
    "none": None,
    "bool": PADDED,
    "float": torch.zeros(2, 1, 6, 6).masked_fill(~PADDED, torch.finfo(torch.float32).min),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("module", [Plain(), Causal()])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_on_cpus_is_attention(mask, module, scale):
    causal = module.is_causal and mask == "none"
    groups = getattr(module, "num_key_value_groups", 1)
    ours, theirs = inputs(4 // groups), inputs(4 // groups)
    out, _ = _attention(module, *ours, MASKS[mask], scaling=scale)
    expected = scaled_dot_product_attention(
        *theirs, attn_mask=MASKS[mask], is_causal=causal, scale=scale, enable_gqa=groups > 1
    ).transpose(1, 2)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    toward = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * toward).sum().backward()
    (expected * toward).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
