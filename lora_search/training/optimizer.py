"""AdamW over a pack: every slot keeps its own learning rate, schedule, clipping and step count."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from lora_search.adapters import AdapterPack


def schedule_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Share of the peak learning rate at 0-based ``step``: linear warm-up, then linear decay to zero.

    As transformers' ``get_linear_schedule_with_warmup`` with ceil(total * warmup_ratio) warm-up steps.
    """
    warmup = -int(-total * warmup_ratio // 1)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def _consecutive(slots: Sequence[int]) -> list[slice]:
    """Ascending slots as slices of consecutive ones: the matrices of all-active packs are updated as a whole."""
    runs = []
    for _, members in groupby(enumerate(slots), key=lambda pair: pair[1] - pair[0]):
        run = [slot for _, slot in members]
        runs.append(slice(run[0], run[-1] + 1))
    return runs


class PackedAdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as ``torch.optim.AdamW`` computes it, row by row of the pack.

    Args:
        pack: values and gradients, (slots, parameters).
        learning_rates: peak learning rate of each slot.
        total_steps: length of each slot's schedule.
        warmup_ratio: share of the steps in which the rate rises from zero.
        weight_decay: applied to matrices, not to biases and norms.
        max_grad_norm: each slot's gradient is scaled down to this norm.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(
        self,
        pack: AdapterPack,
        learning_rates: Sequence[float],
        total_steps: Sequence[int],
        *,
        warmup_ratio: float,
        weight_decay: float,
        max_grad_norm: float,
    ) -> None:
        self.pack = pack
        self.learning_rates = tuple(learning_rates)
        self.total_steps = tuple(total_steps)
        self.warmup_ratio = warmup_ratio
        self.max_grad_norm = max_grad_norm
        self.first = torch.zeros_like(pack.values)
        self.second = torch.zeros_like(pack.values)
        self.steps = [0] * len(self.learning_rates)
        self._decay = pack.matrix_columns().float() * weight_decay if weight_decay else None

    def step(self, active: Sequence[int]) -> None:
        """Update the slots in ``active`` (ascending) from the gradients of a whole step, and zero all gradients."""
        self.pack.finish_gradients()
        for run in _consecutive(active):
            self._update(run)
        for slot in active:
            self.steps[slot] += 1
        self.pack.zero_gradients()
        self.pack.refresh()

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.pack.device, dtype=torch.float32).unsqueeze(1)

    def _update(self, run: slice) -> None:
        slots = range(run.start, run.stop)
        value, gradient = self.pack.values[run], self.pack.gradients[run]
        first, second = self.first[run], self.second[run]
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        first.lerp_(gradient, 1 - self.BETA1)
        second.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
        rates = [
            self.learning_rates[s] * schedule_factor(self.steps[s], self.total_steps[s], self.warmup_ratio)
            for s in slots
        ]
        if self._decay is not None:
            value.sub_(value * self._decay * self._column(rates))
        counts = [self.steps[s] + 1 for s in slots]
        root = self._column([(1 - self.BETA2**n) ** 0.5 for n in counts])
        size = self._column([rate / (1 - self.BETA1**n) for rate, n in zip(rates, counts, strict=True)])
        value.sub_(first / (second.sqrt().div_(root).add_(self.EPSILON)) * size)
