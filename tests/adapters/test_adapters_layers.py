"""The stand-ins, each against the equation it computes written row by row with autograd doing the rest.

That of LoRA is ``plain_lora.py``, the place to begin reading.
"""

import pytest
import torch
from plain_lora import PlainLora
from torch import nn
from torch.nn.functional import layer_norm, linear
from transformers.pytorch_utils import Conv1D

from lora_search.adapters import AdapterPack, MixedRowsError, Rows, SlotAdapter, layers
from lora_search.adapters.dropout import keep_mask

IN, OUT, TOKENS = 5, 4, 3
KEYS = torch.tensor([11, 12, 13, 14, 15])
SLOTS = (0, 0, 1, 3, 3)


class OneModule(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.other = nn.Linear(IN, OUT)
        self.module = module


def weights(pack, generator):
    """Random weights in every slot, as leaves for autograd."""
    states = []
    for slot in range(len(pack.adapters)):
        state = {name: torch.randn(value.shape, generator=generator) for name, value in pack.state(slot).items()}
        pack.load(slot, state)
        states.append({name: value.clone().requires_grad_() for name, value in state.items()})
    return states


def masks_of(pack, keys, shape):
    """The masks the module draws, seen from outside: the update of an identity adapter on ones is the mask itself."""
    features = shape[-1]
    model = OneModule(nn.Linear(features, features, bias=False)).requires_grad_(False)
    model.module.weight.zero_()
    adapters = [SlotAdapter(frozenset({"module"}), features, 1.0, 1, a.dropout) for a in pack.adapters]
    identity = AdapterPack(model, adapters, [])
    for slot in range(len(adapters)):
        identity.load(slot, {"module.lora_A": torch.eye(features), "module.lora_B": torch.eye(features)})
    identity.training = True
    with identity.attached(), torch.no_grad():
        identity.rows = Rows(SLOTS, keys)
        return model.module(torch.ones(shape))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_lora_is_the_plain_one_of_each_rows_own_slot(kind, dropout):
    torch.manual_seed(0)
    frozen = nn.Linear(IN, OUT) if kind == "linear" else Conv1D(OUT, IN)
    model = OneModule(frozen).requires_grad_(False)
    ranks, scales = (2, 3, 1, 4), (0.5, 2.0, 1.0, 1.5)
    adapters = [
        SlotAdapter(frozenset({"module"} if slot != 1 else {"other"}), ranks[slot], scales[slot], 1, dropout)
        for slot in range(4)
    ]
    pack = AdapterPack(model, adapters, [])
    states = weights(pack, torch.Generator().manual_seed(1))
    pack.training = True
    x = torch.randn(len(SLOTS), TOKENS, IN, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    toward = torch.randn(len(SLOTS), TOKENS, OUT)
    with pack.attached():
        pack.rows = Rows(SLOTS, KEYS)
        y = model.module(x)
        (y * toward).sum().backward()
    for block in pack.blocks(range(len(pack.adapters))):
        pack.finish_gradients(block)

    mask = masks_of(pack, KEYS, (len(SLOTS), TOKENS, IN))
    assert bool((mask == 0).any()) == (dropout > 0)
    plain = {
        slot: PlainLora(frozen, states[slot]["module.lora_A"], states[slot]["module.lora_B"], scales[slot])
        for slot in (0, 3)
    }
    rows = [plain[slot](twin[row], mask[row]) if slot != 1 else frozen(twin[row]) for row, slot in enumerate(SLOTS)]
    expected = torch.stack(rows)
    (expected * toward).sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, twin.grad)
    for slot in (0, 3):
        gradients = pack.slot_gradients(slot)
        torch.testing.assert_close(gradients["module.lora_A"], plain[slot].a.grad)
        torch.testing.assert_close(gradients["module.lora_B"], plain[slot].b.grad)
    assert pack.gradients[1].abs().max() == 0
    assert pack.gradients[2].abs().max() == 0


def dropped(model, pack, rows, x):
    """A forward in training and the gradients it leaves."""
    pack.gradients.zero_()
    pack.training = True
    with pack.attached():
        pack.rows = rows
        y = model.module(x)
        y.square().sum().backward()
    return y.detach(), pack.gradients.clone()


def packed_linear():
    torch.manual_seed(0)
    model = OneModule(nn.Linear(IN, OUT)).requires_grad_(False)
    pack = AdapterPack(model, [SlotAdapter(frozenset({"module"}), 2, 1.0, 1, d) for d in (0.5, 0.0, 0.3)], [])
    weights(pack, torch.Generator().manual_seed(2))
    return model, pack


def test_masks_are_drawn_for_the_rows_that_drop_alone(monkeypatch):
    model = OneModule(nn.Linear(IN, IN, bias=False)).requires_grad_(False)
    model.module.weight.zero_()
    choices = [("module", 0.5), ("module", 0.0), ("other", 0.3), ("module", 0.3)]
    pack = AdapterPack(model, [SlotAdapter(frozenset({name}), IN, 1.0, 1, rate) for name, rate in choices], [])
    for slot in (0, 1, 3):
        pack.load(slot, {"module.lora_A": torch.eye(IN), "module.lora_B": torch.eye(IN)})
    drawn, slots, x = [], (0, 0, 1, 2, 3), torch.ones(5, 40, IN)

    def draw(keys, shape, probability, module, first_token=None):
        drawn.extend(keys.tolist())
        return keep_mask(keys, shape, probability, module, first_token)

    monkeypatch.setattr(layers, "keep_mask", draw)
    seen, _ = dropped(model, pack, Rows(slots, KEYS), x)
    rates = torch.tensor([choices[slot][1] for slot in slots])
    with pack.attached():
        expected = keep_mask(KEYS, x.shape, rates, model.module.number)
    expected[3] = 0.0  # its slot does not adapt the module
    assert torch.equal(seen, expected)
    assert drawn == [11, 12, 15]
    dropped(model, pack, Rows((1, 1, 2), KEYS[:3]), x[:3])
    assert drawn == [11, 12, 15]


def test_flattened_tokens_are_dropped_as_their_rows_are():
    model, pack = packed_linear()
    x = torch.randn(5, TOKENS, IN)
    slots = (0, 0, 1, 2, 2)
    y, gradients = dropped(model, pack, Rows(slots, KEYS, width=TOKENS), x)
    flat, flat_gradients = dropped(model, pack, Rows(slots, KEYS, width=TOKENS), x.view(-1, IN))
    torch.testing.assert_close(flat.view_as(y), y)
    torch.testing.assert_close(flat_gradients, gradients)


def test_a_shared_input_is_dropped_the_same_whichever_rows_are_there():
    model, pack = packed_linear()
    shared = torch.randn(1, 7, IN)
    first, _ = dropped(model, pack, Rows((0, 0), KEYS[:2], width=TOKENS, shared_key=99), shared)
    second, _ = dropped(model, pack, Rows((0,), KEYS[4:], width=TOKENS, shared_key=99), shared)
    other_step, _ = dropped(model, pack, Rows((0,), KEYS[4:], width=TOKENS, shared_key=98), shared)
    assert torch.equal(first, second)
    assert not torch.equal(first, other_step)


def test_a_mask_does_not_depend_on_what_else_the_pack_adapts():
    x = torch.randn(2, TOKENS, IN)
    results = []
    for company in ((), ("other",)):
        torch.manual_seed(0)
        model = OneModule(nn.Linear(IN, OUT)).requires_grad_(False)
        targets = [frozenset({"module"}), frozenset({"module", *company})]
        pack = AdapterPack(model, [SlotAdapter(t, 2, 1.0, 1, 0.5) for t in targets], [])
        generator = torch.Generator().manual_seed(2)
        for slot in (0, 1):
            state = pack.state(slot)
            for name in ("module.lora_A", "module.lora_B"):
                state[name] = torch.randn(state[name].shape, generator=generator)
            pack.load(slot, state)
        results.append(dropped(model, pack, Rows((0, 1), KEYS[:2]), x)[0])
    assert torch.equal(*results)


def test_slots_that_share_an_input_that_is_not_theirs_row_by_row_are_refused():
    model, pack = packed_linear()
    pack.rows = Rows((0, 1), width=TOKENS)
    with pack.attached(), pytest.raises(MixedRowsError, match=r"input of shape \(1, 7, 5\)"):
        model.module(torch.randn(1, 7, IN))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_stand_in_passes_for_the_module_it_stands_for(kind):
    torch.manual_seed(0)
    frozen = nn.Linear(IN, OUT) if kind == "linear" else Conv1D(OUT, IN)
    model = OneModule(frozen).requires_grad_(False)
    pack = AdapterPack(model, [SlotAdapter(frozenset({"module"}), 2, 1.0, 1)], [])
    weights(pack, torch.Generator().manual_seed(2))
    x = torch.randn(2, TOKENS, IN)
    gradients = []
    with pack.attached():
        pack.rows = Rows((0, 0))
        assert model.module.weight is frozen.weight
        assert model.module.bias is frozen.bias
        with pytest.raises(AttributeError, match="nonsense"):
            _ = model.module.nonsense
        for in_place in (False, True):
            pack.gradients.zero_()
            y = model.module(x)
            y = y.mul_(3.0) if in_place else y * 3.0  # models may change what a linear module gives them
            y.square().sum().backward()
            gradients.append(pack.gradients.clone())
    assert torch.equal(*gradients)


class Head(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.linear = nn.Linear(IN, OUT, bias=bias)
        self.norm = nn.LayerNorm(OUT, eps=1e-3, bias=bias)

    def forward(self, x):
        return self.norm(self.linear(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [(), (TOKENS,)])
def test_a_head_is_each_rows_own(tokens, bias):
    torch.manual_seed(0)
    model = Head(bias).requires_grad_(False)
    pack = AdapterPack(model, [SlotAdapter(frozenset(), 1, 1.0, 1)] * 4, ["linear", "norm"])
    states = weights(pack, torch.Generator().manual_seed(1))
    x = torch.randn(len(SLOTS), *tokens, IN, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    toward = torch.randn(len(SLOTS), *tokens, OUT)
    with pack.attached():
        pack.rows = Rows(SLOTS)
        y = model(x)
        (y * toward).sum().backward()
    for block in pack.blocks(range(len(pack.adapters))):
        pack.finish_gradients(block)
    rows = []
    for row, slot in enumerate(SLOTS):
        state = states[slot]
        out = linear(twin[row], state["linear.weight"], state.get("linear.bias"))
        rows.append(layer_norm(out, (OUT,), state["norm.weight"], state.get("norm.bias"), eps=1e-3))
    expected = torch.stack(rows)
    (expected * toward).sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, twin.grad)
    for slot in (0, 1, 3):
        for name, gradient in pack.slot_gradients(slot).items():
            torch.testing.assert_close(gradient, states[slot][name].grad)
    assert pack.gradients[2].abs().max() == 0


def test_a_head_computes_in_float32_over_a_bf16_base():
    torch.manual_seed(0)
    model = Head(bias=True).bfloat16().requires_grad_(False)
    pack = AdapterPack(model, [SlotAdapter(frozenset(), 1, 1.0, 1)], ["linear", "norm"], dtype=torch.bfloat16)
    x = torch.randn(2, IN, dtype=torch.bfloat16, requires_grad=True)
    with pack.attached():
        pack.rows = Rows((0, 0))
        y = model(x)
        y.sum().backward()
    assert y.dtype == pack.values.dtype == pack.gradients.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16
