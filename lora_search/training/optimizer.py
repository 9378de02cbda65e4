"""AdamW over a pack: every slot keeps its own learning rate, schedule, clipping and step count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_search.adapters import AdapterPack, Block, on_device


def schedule_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Share of the peak learning rate at 0-based ``step``: linear warm-up, then linear decay to zero.

    As transformers' ``get_linear_schedule_with_warmup`` with ceil(total * warmup_ratio) warm-up steps.
    """
    warmup = -int(-total * warmup_ratio // 1)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


class PackedAdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as ``torch.optim.AdamW`` computes it, row by row of the pack.

    Args:
        pack: values and gradients, (slots, parameters).
        learning_rates: peak learning rate of each slot.
        total_steps: length of each slot's schedule.
        warmup_ratio: share of the steps in which the rate rises from zero.
        weight_decay: applied to all but biases and norms.
        max_grad_norm: each slot's gradient is scaled down to this norm.
        loraplus_lr_ratios: of each slot how many times faster B learns than A (LoRA+, Hayou et al. 2024); with B, as in
            PEFT, whatever is a vector. None: as fast.
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
        loraplus_lr_ratios: Sequence[float] | None = None,
    ) -> None:
        self.pack = pack
        self.learning_rates = tuple(learning_rates)
        self.total_steps = tuple(total_steps)
        self.warmup_ratio = warmup_ratio
        self.max_grad_norm = max_grad_norm
        self.first = torch.zeros_like(pack.values)
        self.second = torch.zeros_like(pack.values)
        self.steps = [0] * len(self.learning_rates)
        self._decay = pack.decayed_columns().float() * weight_decay if weight_decay else None
        self._vectors = ~pack.matrix_columns()
        faster = loraplus_lr_ratios is not None and any(ratio != 1.0 for ratio in loraplus_lr_ratios)
        self._ratios = self._column(loraplus_lr_ratios or ()) if faster else None

    def step(self, active: Sequence[int]) -> None:
        """Update the slots in ``active`` (ascending) from the gradients of a whole step, and zero these."""
        blocks = list(self.pack.blocks(active))
        squares = torch.zeros(len(self.steps), 1, device=self.pack.device)
        for block in blocks:
            squares[block.slots] += self.pack.finish_gradients(block).square().sum(1, keepdim=True)
        shrink = (self.max_grad_norm / (squares.sqrt_() + 1e-6)).clamp_(max=1.0)
        rates = [
            rate * schedule_factor(step, total, self.warmup_ratio)
            for rate, step, total in zip(self.learning_rates, self.steps, self.total_steps, strict=True)
        ]
        sizes = [rate / (1 - self.BETA1 ** (step + 1)) for rate, step in zip(rates, self.steps, strict=True)]
        roots = [(1 - self.BETA2 ** (step + 1)) ** 0.5 for step in self.steps]
        columns = shrink, self._column(rates), self._column(sizes), self._column(roots)
        for block in blocks:
            shrunk, rate, size, root = (column[block.slots] for column in columns)
            if self._ratios is not None and block.kind != "lora_A":
                ratio = self._ratios[block.slots]
                if block.kind != "lora_B":
                    ratio = torch.where(self._vectors[block.columns], ratio, 1.0)
                rate, size = rate * ratio, size * ratio
            self._update(block, shrunk, rate, size, root)
        for slot in active:
            self.steps[slot] += 1
        self.pack.refresh(active)

    def _column(self, values: Sequence[float]) -> Tensor:
        return on_device(values, self.pack.device, torch.float32).unsqueeze(1)

    def _update(self, block: Block, shrink: Tensor, rate: Tensor, size: Tensor, root: Tensor) -> None:
        """``shrink``, ``rate``, ``size`` (of the step) and ``root`` (of the second moment's correction): (slots, 1), or
        (slots, columns)."""
        value, gradient = block.of(self.pack.values), block.of(self.pack.gradients)
        first, second = block.of(self.first), block.of(self.second)
        gradient.mul_(shrink)
        first.lerp_(gradient, 1 - self.BETA1)
        second.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
        if self._decay is not None:
            value.sub_(value * self._decay[block.columns] * rate)
        value.sub_(first / (second.sqrt().div_(root).add_(self.EPSILON)) * size)
        gradient.zero_()
