"""What PEFT lets a LoRA train besides A and B: DoRA's magnitudes, and the biases of the adapted modules.

DoRA (Liu et al. 2024, equation 5) scales each row of W + s B A to a learned magnitude m: with c = m / ||W + s B A||,
the module computes c * ((W + s B A) x) + b. As section 4.3 of the paper has it, and PEFT, the norm is a constant of the
step: it follows A and B, and no gradient goes through it. It is found without W + s B A itself, from

    ||w + s b A||^2 = ||w||^2 + 2 s b (A w) + s^2 b (A A^T) b^T

for each row w of W and b of B. Of a slot that is no DoRA, c is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_search.adapters.frozen import matrix_of
from lora_search.adapters.layers import Matrices, PackedLora, RowSource
from lora_search.adapters.rows import stacked, unstacked

MAGNITUDE, BIAS = "lora_magnitude_vector", "base_layer.bias"
"""As PEFT names these behind the name of the module."""


@dataclass(frozen=True)
class Magnitude:
    """Of one module and every slot, each (slots, out): c = m / norm, 1 / norm, and where the gradient of m is added.
    The second is zero for a slot that is no DoRA, and so is the third."""

    factor: Tensor
    inverse_norm: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Biases:
    """Of one module and every slot: its bias (slots, out), whether it trains it (slots, 1), 1 or 0, and where the
    gradient is added."""

    value: Tensor
    trains: Tensor
    gradient: Tensor


class Magnitudes:
    """The factors c of a pack's DoRA slots, by module.

    Args:
        modules: the frozen modules by name.
        members: of each module the slots that are DoRA on it; modules without are left out.
        slots: how many there are.
        zeros: makes the storage, of a shape.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        members: Mapping[str, Sequence[int]],
        slots: int,
        zeros: Callable[[int, int], Tensor],
    ) -> None:
        self.members = members
        self._frozen = {name: modules[name] for name in members}
        self._squares = {name: matrix_of(module).float().square().sum(1) for name, module in self._frozen.items()}
        self._stored = {
            name: (zeros(slots, len(square)).fill_(1.0), zeros(slots, len(square)))
            for name, square in self._squares.items()
        }

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is stored."""
        return tuple(tensor for pair in self._stored.values() for tensor in pair)

    def initial(self, name: str) -> Tensor:
        """(out,), the magnitudes that change nothing: ||W||."""
        return self._squares[name].sqrt()

    def of(self, name: str, gradient: Tensor) -> Magnitude | None:
        """Of one module; None where no slot is DoRA on it."""
        return Magnitude(*self._stored[name], gradient) if name in self._stored else None

    def refresh(self, name: str, slots: Sequence[int], a: Tensor, b: Tensor, m: Tensor) -> None:
        """Find c of some slots again.

        Args:
            name: of the module.
            slots: k of its members.
            a, b: (k, rank, in) and (k, out, rank), b times the slot's scale.
            m: (k, out).
        """
        factor, inverse_norm = self._stored[name]
        crossed = (b * (a @ matrix_of(self._frozen[name]).float().t()).transpose(1, 2)).sum(2)
        own = ((b @ (a @ a.transpose(1, 2))) * b).sum(2)
        square = self._squares[name] + 2.0 * crossed + own
        inverse = square.clamp_(min=torch.finfo(square.dtype).tiny).rsqrt_()
        inverse_norm[slots] = inverse
        factor[slots] = m * inverse


class _VariantFunction(torch.autograd.Function):
    """y = W x + b' + (c - 1) W x' + c s B A x', with x' = x * mask, row by row with the row's own A, B, c and b'.

    With g = dL/dy and z = (W + s B A) x': dL/db' = g; dL/dc = g * z; and with h = c * g, dL/dA = (h B)^T x',
    dL/dB = h^T (A x') and dL/dx = g W + mask * ((h - g) W + (h B) A).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: PackedVariant, mask: Tensor | None) -> Tensor:
        runs = module.source.rows.runs_for(x, module.members)
        y: Tensor = module.frozen(x).contiguous().data
        dropped = x if mask is None else x * mask
        kept = []
        for run in runs:
            slots, rows = run.slot_slice(), unstacked(y, run)
            u = torch.bmm(stacked(dropped, run), module.a.compute[slots].transpose(1, 2))
            z = torch.bmm(u, module.b.compute[slots].transpose(1, 2))
            if module.magnitude is None:
                rows.add_(z)
                kept.append(u)
            else:
                plain = (
                    _without_bias(rows, module)
                    if mask is None
                    else stacked(dropped, run) @ matrix_of(module.frozen).t()
                )
                z.add_(plain)
                factor = module.magnitude.factor[slots].unsqueeze(1).to(z.dtype)
                rows.add_(z * factor - plain)
                kept += [u, z]
            if module.biases is not None:
                change = module.biases.value[slots] - module.frozen.bias  # type: ignore[operator]
                rows.add_(change.unsqueeze(1).to(rows.dtype))
        ctx.module, ctx.runs = module, runs
        ctx.save_for_backward(dropped, mask, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        g = gradients[0].contiguous()
        module: PackedVariant = ctx.module
        dropped, mask, *kept = ctx.saved_tensors
        wanted, dora = ctx.needs_input_grad[0], module.magnitude is not None
        # through the frozen matrix: what goes as it is, what goes behind the mask; and past it, through A and B
        straight = g.clone() if wanted and dora and mask is None else g
        behind = torch.zeros_like(g) if wanted and dora and mask is not None else None
        past = torch.zeros_like(dropped) if wanted else None
        for run in ctx.runs:
            slots, gs, u = run.slot_slice(), stacked(g, run), kept.pop(0)
            if module.biases is not None:
                module.biases.gradient[slots].add_(gs.sum(1, dtype=torch.float32) * module.biases.trains[slots])
            h = gs
            if module.magnitude is not None:
                z = kept.pop(0)
                h = gs * module.magnitude.factor[slots].unsqueeze(1).to(gs.dtype)
                inverse_norm = module.magnitude.inverse_norm[slots]
                module.magnitude.gradient[slots].add_((gs * z).sum(1, dtype=torch.float32) * inverse_norm)
                if behind is not None:
                    unstacked(behind, run).copy_(h - gs)
                elif wanted:
                    unstacked(straight, run).copy_(h)
            v = torch.bmm(h, module.b.compute[slots])
            module.a.gradient[slots].add_(torch.bmm(stacked(dropped, run).transpose(1, 2), v).transpose(1, 2))
            module.b.gradient[slots].add_(torch.bmm(u.transpose(1, 2), h).transpose(1, 2))
            if past is not None:
                unstacked(past, run).baddbmm_(v, module.a.compute[slots])
        if past is None:
            return None, None, None, None
        if behind is not None:
            past.add_(module.frozen_input_gradient(behind))
        if mask is not None:
            past.mul_(mask)
        return past.add_(module.frozen_input_gradient(straight)), None, None, None


def _without_bias(rows: Tensor, module: PackedVariant) -> Tensor:
    """W x of W x + b."""
    bias: Tensor | None = module.frozen.bias  # type: ignore[assignment]
    return rows.clone() if bias is None else rows - bias


class PackedVariant(PackedLora):
    """As ``PackedLora``, of which slots have magnitudes or biases of their own.

    Args:
        frozen, a, b, source, members, number: as there.
        magnitude: None where no slot is DoRA.
        bias: None where every slot keeps the module's.
    """

    def __init__(
        self,
        frozen: nn.Module,
        a: Matrices,
        b: Matrices,
        source: RowSource,
        members: frozenset[int],
        number: int,
        magnitude: Magnitude | None,
        bias: Biases | None,
    ) -> None:
        super().__init__(frozen, a, b, source, members, number)
        self.magnitude, self.biases = magnitude, bias

    def forward(self, x: Tensor) -> Tensor:
        if not self.members.intersection(self.source.rows.present):
            return self.frozen(x)  # type: ignore[no-any-return]
        return _VariantFunction.apply(x, self.source.anchor, self, self._mask(x))  # type: ignore[no-any-return,no-untyped-call]
