"""The packed optimizer against torch's and transformers', slot by slot."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import get_linear_schedule_with_warmup

from lora_search.adapters import AdapterPack, SlotAdapter
from lora_search.training.optimizer import PackedAdamW, schedule_factor


@given(st.integers(1, 60), st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.9]))
def test_the_schedule_is_transformers(total, warmup_ratio):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(total * warmup_ratio), total)
    for step in range(total + 2):
        assert schedule_factor(step, total, warmup_ratio) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_schedule_by_hand():
    # ten steps, ceil(0.25 * 10) = 3 of warm-up: 0, 1/3, 2/3, then 7/7, 6/7 ... 1/7
    factors = [schedule_factor(step, 10, 0.25) for step in range(11)]
    assert factors == pytest.approx([0, 1 / 3, 2 / 3, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 2)


RATES, TOTALS, RANKS, SCALES = (1e-2, 3e-3, 2e-2), (6, 9, 9), (1, 3, 2), (2.0, 0.5, 1.0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_grad_norm", [1.0, 1e9])
def test_each_slot_is_torchs_adamw_with_clipping(weight_decay, max_grad_norm):
    torch.manual_seed(0)
    adapters = [SlotAdapter(frozenset({"body"}), rank, scale, 1) for rank, scale in zip(RANKS, SCALES, strict=True)]
    pack = AdapterPack(Two(), adapters, ["norm", "head"])
    ours = PackedAdamW(pack, RATES, TOTALS, warmup_ratio=0.2, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
    twins, optimizers, schedules = [], [], []
    for slot, (rate, total) in enumerate(zip(RATES, TOTALS, strict=True)):
        twin = {name: nn.Parameter(value) for name, value in pack.state(slot).items()}
        groups = [
            {"params": [p for p in twin.values() if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in twin.values() if p.dim() == 1], "weight_decay": 0.0},
        ]
        twins.append(twin)
        optimizers.append(torch.optim.AdamW(groups, lr=rate))
        schedules.append(get_linear_schedule_with_warmup(optimizers[-1], math.ceil(0.2 * total), total))
    for step in range(max(TOTALS)):
        active = [slot for slot in range(3) if step < TOTALS[slot] and not (slot == 1 and step == 4)]
        for slot in active:
            gradients = {name: torch.randn_like(p) * 10 ** (step % 3 - 1) for name, p in twins[slot].items()}
            for name, gradient in gradients.items():
                twins[slot][name].grad = gradient
            write_gradients(pack, slot, gradients)
            torch.nn.utils.clip_grad_norm_(twins[slot].values(), max_grad_norm)
            optimizers[slot].step()
            schedules[slot].step()
        ours.step(active)
        assert pack.gradients.abs().max() == 0
        for slot in range(3):
            for name, value in pack.state(slot).items():
                torch.testing.assert_close(value, twins[slot][name].detach(), rtol=1e-5, atol=1e-7)
    assert ours.steps == [6, 8, 9]


def write_gradients(pack, slot, gradients):
    """As a backward leaves them: those of scale * B where a slot's own are of B."""
    scale = pack.adapters[slot].scale
    for name, part, parameter in pack._own(slot):
        own = gradients[name] / scale if name.endswith("lora_B") else gradients[name]
        parameter.of(pack.gradients, slot)[part].copy_(own)


def test_slots_that_pause_keep_weights_and_moments():
    pack = AdapterPack(Two(), [SlotAdapter(frozenset({"body"}), 2, 1.0, key) for key in (1, 2)], ["head"])
    optimizer = PackedAdamW(pack, (1e-2, 1e-2), (5, 5), warmup_ratio=0.0, weight_decay=0.1, max_grad_norm=1.0)
    pack.gradients.fill_(1.0)
    before = pack.values[0].clone()
    optimizer.step([1])
    assert torch.equal(pack.values[0], before)
    assert optimizer.first[0].abs().max() == 0
    assert optimizer.steps == [0, 1]
