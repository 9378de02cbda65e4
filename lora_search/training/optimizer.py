"""AdamW over a pack: every slot keeps its own learning rate, schedule, clipping and step count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_search.adapters import AdapterPack, Block


def schedule_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Share of the peak learning rate at 0-based ``step``: linear warm-up, then linear decay to zero.

    As transformers' ``get_linear_schedule_with_warmup`` with ceil(total * warmup_ratio) warm-up steps.
    """
    warmup = -int(-total * warmup_ratio // 1)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


class PackedAdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as ``torch.optim.AdamW`` computes it, slot by slot, in
    PyTorch's own fused kernel: once over the numbers of a slot.

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
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.first = torch.zeros_like(pack.values)
        self.second = torch.zeros_like(pack.values)
        self.steps = [0] * len(self.learning_rates)
        # told to the kernel as numbers on the device
        self._counts = torch.zeros(len(self.steps), device=pack.device)
        self._pieces = [self._pieces_of(slot) for slot in range(len(self.steps))]

    def step(self, active: Sequence[int]) -> None:
        """Update the slots in ``active`` (ascending) from the gradients of a whole step, and zero these."""
        squares = torch.zeros(len(self.steps), 1, device=self.pack.device)
        for block in self.pack.blocks(active):
            squares[block.slots] += self.pack.finish_gradients(block).square().sum(1, keepdim=True)
        # what gradients are divided by
        excess = ((squares.sqrt_() + 1e-6) / self.max_grad_norm).clamp_(min=1.0)
        for slot in active:
            self._counts[slot] += 1
            rate = self.learning_rates[slot] * schedule_factor(
                self.steps[slot], self.total_steps[slot], self.warmup_ratio
            )
            for pieces, weight_decay in self._pieces[slot]:
                torch._fused_adamw_(
                    *([piece.of(storage)[0] for piece in pieces] for storage in self._storages()),
                    [],
                    [self._counts[slot]] * len(pieces),
                    lr=rate,
                    beta1=self.BETA1,
                    beta2=self.BETA2,
                    weight_decay=weight_decay,
                    eps=self.EPSILON,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=excess[slot],
                    found_inf=None,
                )
            self.pack.gradients[slot].zero_()
            self.steps[slot] += 1
        self.pack.refresh(active)

    def _storages(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.pack.values, self.pack.gradients, self.first, self.second

    def _pieces_of(self, slot: int) -> list[tuple[list[Block], float]]:
        """The consecutive columns that a slot trains, in groups of one weight decay."""
        decayed, others = self.pack.pieces(slot)
        if not self.weight_decay:
            return [(decayed + others, 0.0)]
        return [(group, decay) for group, decay in ((decayed, self.weight_decay), (others, 0.0)) if group]
