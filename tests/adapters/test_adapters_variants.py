"""DoRA and trained biases under LoRA dropout, and beside slots without: against the equation written out."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_search.adapters import AdapterPack, Rows, SlotAdapter

IN, OUT, RANK = 6, 5, 2
KINDS = (
    {"use_dora": True, "dropout": 0.5, "trains_bias": True},
    {"use_dora": True},
    {"trains_bias": True, "dropout": 0.25},
    {},
)


class One(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def pack_of(conv, kinds=KINDS):
    torch.manual_seed(0)
    module = Conv1D(OUT, IN) if conv else nn.Linear(IN, OUT)
    nn.init.normal_(module.bias)
    model = One(module).requires_grad_(False)
    slots = [SlotAdapter(frozenset({"module"}), RANK, 1.5, key, **kind) for key, kind in enumerate(kinds)]
    pack = AdapterPack(model, slots, [])
    for slot in range(len(kinds)):
        state = pack.state(slot)
        pack.load(slot, {name: value + 0.3 * torch.randn_like(value) for name, value in state.items()})
    pack.training = True
    return model, pack


def written_out(x, mask, weight, bias, state, scale):
    """As PEFT has it: W x + b + (c - 1) W x' + c s B A x', x' = x * mask, the norm in c a constant."""
    dropped = x * mask
    a, b = state["module.lora_A"], state["module.lora_B"]
    own = state.get("module.base_layer.bias", bias)
    c = torch.ones(OUT)
    if (m := state.get("module.lora_magnitude_vector")) is not None:
        c = m / (weight + scale * b @ a).detach().norm(dim=1)
    return x @ weight.t() + own + (c - 1) * (dropped @ weight.t()) + c * scale * (dropped @ a.t() @ b.t())


@pytest.mark.parametrize("conv", [False, True])
def test_values_and_gradients_are_those_of_the_equation(conv):
    model, pack = pack_of(conv)
    weight = model.module.weight.t() if conv else model.module.weight
    x = torch.randn(8, 3, IN, requires_grad=True)
    along = torch.randn(8, 3, OUT)
    with pack.attached():
        pack.rows = Rows([0, 0, 1, 1, 2, 2, 3, 3], torch.arange(8), width=3)
        mask = model.module._mask(x)
        y = model(x)
        (y * along).sum().backward()
    gx, x.grad = x.grad, None
    for block in pack.blocks(range(len(KINDS))):
        pack.finish_gradients(block)
    assert (mask == 0).any()
    for slot in range(len(KINDS)):
        rows = slice(2 * slot, 2 * slot + 2)
        state = {name: value.requires_grad_() for name, value in pack.state(slot).items()}
        expected = written_out(x[rows], mask[rows], weight, model.module.bias, state, 1.5)
        torch.testing.assert_close(y[rows], expected)
        (expected * along[rows]).sum().backward()
        for name, gradient in pack.slot_gradients(slot).items():
            torch.testing.assert_close(gradient, state[name].grad, msg=name)
    torch.testing.assert_close(gx, x.grad)


def test_what_a_slot_does_not_train_stays_without_gradient():
    """Else it would count in the norm that the slot's gradients are clipped to."""
    model, pack = pack_of(False)
    x = torch.randn(8, 3, IN)
    with pack.attached():
        pack.rows = Rows([0, 0, 1, 1, 2, 2, 3, 3], torch.arange(8), width=3)
        model(x).sum().backward()
    trained = [sum(value.numel() for value in pack.state(slot).values()) for slot in range(len(KINDS))]
    assert trained == [RANK * (IN + OUT) + beside for beside in (2 * OUT, OUT, OUT, 0)]
    for slot, gradients in enumerate(pack.gradients):
        assert int((gradients != 0).sum()) <= trained[slot]


def test_a_plain_pack_has_no_room_for_them():
    _, pack = pack_of(False, kinds=({}, {}))
    assert pack.values.shape[1] == RANK * (IN + OUT)
