"""The promises of the engine over a base in 4 bits: solo = packed = cached = PEFT's own QLoRA.

On a CPU in float32 codes come to the same numbers whoever asks, so tolerances are those of a base that is not
quantized. bf16 rounds (see ``test_bf16_comes_close_to_fp32``).
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, of_keys, quantized_base, tiny_base, toy_data
from peft_loop import padded_batch, peft_twin, trained_weights
from test_training_contract import TOLERANCE, WAYS, cells_of, difference, train, trained_alone
from torch.nn.functional import cross_entropy

from lora_search.adapters import merge_into
from lora_search.adapters.frozen import matrix_of
from lora_search.models import adapter_parameters, resolve_targets, stored_bytes
from lora_search.models.quantization import quantized_modules
from lora_search.spec.experiment import TrainingSpec
from lora_search.training import Engine, EngineSettings
from lora_search.training.precision import in_precision
from lora_search.training.whole import WholeModel

bitsandbytes = pytest.importorskip(
    "bitsandbytes", reason="bitsandbytes is not installed (pip install 'lora-search[quantized]')"
)
CPU = torch.device("cpu")
EVERYTHING = "packed, micro-batched, cached, pooled, in lanes"
FAMILIES = ("bert", "gpt2", "llama")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_what_is_adapted_are_the_same_modules_in_their_true_shapes(family, kind):
    base, plain = quantized_base(family, kind), tiny_base(family)
    modules = resolve_targets(base.structure, "all-linear", "all")
    for here, there in zip(modules, resolve_targets(plain.structure, "all-linear", "all"), strict=True):
        assert (here.name, here.in_features, here.out_features) == (there.name, there.in_features, there.out_features)
        assert (here.role, here.has_bias) == (there.role, there.has_bias)
        codes = base.model.get_submodule(here.name).weight
        assert (codes.dtype, codes.nbytes) == (torch.uint8, here.in_features * here.out_features // 2)
        assert codes.quant_state.quant_type == kind
        made, whole = matrix_of(base.model.get_submodule(here.name)), matrix_of(plain.model.get_submodule(here.name))
        assert 0 < (made - whole).abs().max() < 0.3 * whole.abs().max()
    assert {name for name, _ in quantized_modules(base.model)} == {module.name for module in modules}
    assert adapter_parameters(modules, 2) == adapter_parameters(
        resolve_targets(plain.structure, "all-linear", "all"), 2
    )
    assert base.structure.layer_parameters == plain.structure.layer_parameters
    assert base.structure.head_parameters == plain.structure.head_parameters
    assert stored_bytes(base.model) < stored_bytes(plain.model)


@pytest.mark.parametrize(
    ("family", "way"), [("llama", way) for way in WAYS] + [(family, EVERYTHING) for family in ("bert", "gpt2")]
)
def test_every_way_of_computing_a_cell_gives_the_same(family, way):
    model = f"nf4 {family}"
    engine, together = train(model, cells_of(model), **WAYS[way])
    assert (engine.forward.pooled is not None) == WAYS[way].get("pooled_token", True)
    assert engine.forward.prefix.note is None
    for alone, packed in zip(trained_alone(model), together, strict=True):
        assert packed.steps == alone.steps
        assert packed.loss == pytest.approx(alone.loss, rel=TOLERANCE)
        assert difference(packed.gradients, alone.gradients) < TOLERANCE
        assert difference(packed.weights, alone.weights) < 2 * TOLERANCE
        np.testing.assert_allclose(packed.probabilities, alone.probabilities, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("bert", {"targets": "all-linear"}),
        ("gpt2", {"targets": "all-linear", "layers": "top-2"}),
        ("llama", {"targets": "q_proj,v_proj,down_proj"}),
        ("bert", {"bias": "lora_only"}),
        ("llama", {"use_dora": True, "scaling": "rslora"}),
    ],
)
def test_a_cell_is_what_peft_trains_over_the_same_base(family, variant):
    base, data = quantized_base(family), toy_data()
    cell = make_cell(base, rank=3, alpha=5.0, first=20, rate=3e-3, **variant)
    twin = peft_twin(base, cell)
    kinds = {type(module).__name__ for name, module in twin.named_modules() if hasattr(module, "lora_A")}
    assert kinds == {"Linear4bit"}
    optimizer = torch.optim.AdamW(trainable(twin), lr=3e-3, weight_decay=0.0)
    first = cell.train[:8]
    loss = cross_entropy(twin(**padded_batch(base, data, first)).logits, torch.from_numpy(data.labels[first]))

    steps = []
    engine = make_engine(base, data, epochs=1, batch_size=8, warmup_ratio=0.0, token_budget=64)
    (trained,) = engine.train([replace(cell, train=first)], pack=0, listener=steps.append)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable(twin), 1.0)
    optimizer.step()

    assert steps[0].loss == pytest.approx(loss.item(), rel=1e-5)
    theirs = trained_weights(twin)
    assert trained.state.keys() == theirs.keys()
    for name, value in trained.state.items():
        value[of_keys(name)] = theirs[name][of_keys(name)]
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-4, msg=name)
    with torch.no_grad():
        logits = twin(**padded_batch(base, data, cell.evaluate)).logits
    np.testing.assert_allclose(trained.result.probabilities, logits.softmax(-1).numpy(), atol=1e-5)


def trainable(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_bf16_comes_close_to_fp32(family):
    model = f"nf4 {family}"
    _, found = train(model, cells_of(model), dtype=torch.bfloat16)
    for there, here in zip(trained_alone(model), found, strict=True):
        assert here.loss == pytest.approx(there.loss, rel=0.05)
        np.testing.assert_allclose(here.probabilities, there.probabilities, rtol=0, atol=0.1)


def test_a_base_in_another_precision_has_the_same_codes():
    base = quantized_base("llama")
    other = in_precision(base.model, torch.bfloat16, CPU)
    for (name, one), (_, two) in zip(quantized_modules(base.model), quantized_modules(other), strict=True):
        assert torch.equal(one.weight, two.weight), name
        assert (one.compute_dtype, two.compute_dtype) == (torch.float32, torch.bfloat16)
        assert (matrix_of(one).dtype, matrix_of(two).dtype) == (torch.float32, torch.bfloat16)
    assert other.score.weight.dtype == torch.bfloat16
    assert in_precision(base.model, torch.float32, CPU) is base.model


def test_a_gradient_goes_through_after_an_evaluation_on_every_cpu():
    """On CPUs with bf16 instructions bitsandbytes would repack the codes for products without gradients."""
    base = quantized_base("bert")
    assert not any(module.support_avx512bf16_for_cpu for _, module in quantized_modules(base.model))


def test_what_a_step_holds_is_less_than_over_a_base_that_is_not_quantized():
    data = toy_data()
    held = {}
    for name, base in (("nf4", quantized_base("llama")), ("plain", tiny_base("llama"))):
        held[name] = make_engine(base, data).step_bytes(make_cell(base, layers="top-1"))
    weights = sum(module.in_features * module.out_features for module in tiny_base("llama").structure.linear_modules)
    # 4 bytes each against half of one; beside such small matrices the tables of scales are not small
    assert held["plain"] - held["nf4"] > 2 * weights


@pytest.mark.parametrize("kind", ["bitfit", "hidden-state"])
def test_baselines_that_leave_the_codes_alone_are_trained(kind):
    base, data = quantized_base("bert"), toy_data()
    spec = TrainingSpec(epochs=2, batch_size=8, precision="fp32", gradient_checkpointing=False)
    whole = WholeModel(Engine(base, data, spec, EngineSettings(CPU, torch.float32)), kind)
    before = copy.deepcopy(dict(whole.model.state_dict()))
    result = whole.train(make_cell(base, rate=1e-2))
    assert (result.state, np.isfinite(result.train_loss)) == ("complete", True)
    codes = [name for name, tensor in before.items() if tensor.dtype == torch.uint8]
    assert codes
    assert all(torch.equal(before[name], whole.model.state_dict()[name]) for name in codes)
    if kind == "bitfit":
        query = "bert.encoder.layer.0.attention.self.query.bias"
        assert (before[query] - whole.model.state_dict()[query]).abs().max() > 1e-3


def test_nothing_is_merged_into_codes():
    base = quantized_base("llama")
    cell = make_cell(base, layers="top-1")
    (trained,) = make_engine(base, toy_data(), epochs=1).train([cell], pack=0)
    with pytest.raises(ValueError, match="must be floating-point numbers to merge an update into"):
        merge_into(copy.deepcopy(base.model), trained.state, cell.adapter.scale)
