"""The modules that stand in for a model's linear modules while a pack is attached.

``PackedLora`` stands around a frozen linear module and adds each row's own slot's update. It reads the pack's *compute*
matrices and writes into its *gradient* matrices (see ``pack.py``), past autograd's own leaves: with many slots and
micro-batches the bookkeeping of thousands of small leaves would cost more than their arithmetic.

Shapes: x (rows, ..., in), A (slots, rank, in), B (slots, out, rank), rank the pack's largest there; the rows of A and
columns of B past a slot's own rank are zero, their gradients are products with zero, and so they stay zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lora_search.adapters.dropout import keep_mask
from lora_search.adapters.frozen import matrix_of
from lora_search.adapters.rows import Rows, stacked, unstacked
from lora_search.adapters.transfer import on_device


class RowSource(Protocol):
    """What the modules need to know of the pack at the moment of a forward pass."""

    @property
    def rows(self) -> Rows: ...

    @property
    def dropout(self) -> Tensor | None:
        """Drop probability by slot, float (slots,); None where every slot's is zero or the pass is an evaluation."""

    @property
    def anchor(self) -> Tensor:
        """A scalar that requires grad: it makes autograd call backward where the input itself needs no gradient."""


@dataclass(frozen=True)
class Matrices:
    """One parameter of every slot: views into the pack's flat storage, (slots, *shape)."""

    compute: Tensor
    gradient: Tensor


class _LoraFunction(torch.autograd.Function):
    """y = x W^T + b + (x * mask) A^T B^T, row by row with the row's own A and B (Hu et al. 2021, equation 3; scale is
    in B).

    With g = dL/dy: dL/dx = g W + mask * (g B) A, dL/dA = (g B)^T (x * mask), dL/dB = g^T (x A^T).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: PackedLora, mask: Tensor | None) -> Tensor:
        runs = module.source.rows.runs_for(x, module.members)
        # without .data it may be a view, and the model could not change it in place, as it may its own module's
        y: Tensor = module.frozen(x).contiguous().data
        dropped = x if mask is None else x * mask
        inner = []
        for run in runs:
            a, b = module.a.compute[run.slot_slice()], module.b.compute[run.slot_slice()]
            u = torch.bmm(stacked(dropped, run), a.transpose(1, 2))
            unstacked(y, run).baddbmm_(u, b.transpose(1, 2))
            inner.append(u)
        ctx.module, ctx.runs = module, runs
        ctx.save_for_backward(dropped, mask, *inner)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (g,) = gradients
        module: PackedLora = ctx.module
        dropped, mask, *inner = ctx.saved_tensors
        g = g.contiguous()
        gx = module.frozen_input_gradient(g) if ctx.needs_input_grad[0] else None
        through = None if gx is None or mask is None else torch.zeros_like(gx)
        for run, u in zip(ctx.runs, inner, strict=True):
            slots = run.slot_slice()
            a, b = module.a.compute[slots], module.b.compute[slots]
            gs = stacked(g, run)
            v = torch.bmm(gs, b)
            # products shaped (wide, rank) run faster on CPUs than (rank, wide)
            module.a.gradient[slots].add_(torch.bmm(stacked(dropped, run).transpose(1, 2), v).transpose(1, 2))
            module.b.gradient[slots].add_(torch.bmm(u.transpose(1, 2), gs).transpose(1, 2))
            if gx is not None:
                unstacked(gx if through is None else through, run).baddbmm_(v, a)
        if gx is not None and through is not None:
            gx.add_(through * mask)
        return gx, None, None, None


class PackedLora(nn.Module):
    """A frozen linear module with, for every slot in ``members``, its low-rank update.

    Args:
        frozen: nn.Linear, transformers' Conv1D, or bitsandbytes' Linear4bit (see ``frozen``).
        members: the slots whose spec targets this module; the rows of others pass through the frozen module alone.
        number: separates its dropout masks from other modules'; the same in every pack, or a cell's masks would depend
            on its company.
    """

    def __init__(
        self, frozen: nn.Module, a: Matrices, b: Matrices, source: RowSource, members: frozenset[int], number: int
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.a, self.b = a, b
        self.source = source
        self.members = members
        self.number = number
        self._dropping: frozenset[int] | None = None

    def __getattr__(self, name: str) -> Any:
        """What else a model asks of its linear module (the dtype of its weight, say) the frozen one answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("frozen"), name)

    def forward(self, x: Tensor) -> Tensor:
        if not self.members.intersection(self.source.rows.present):
            return self.frozen(x)  # type: ignore[no-any-return]
        return _LoraFunction.apply(x, self.source.anchor, self, self._mask(x))  # type: ignore[no-any-return,no-untyped-call]

    def frozen_input_gradient(self, g: Tensor) -> Tensor:
        """dL/dx through the frozen weight alone."""
        return g @ matrix_of(self.frozen)

    def _mask(self, x: Tensor) -> Tensor | None:
        """What ``x`` is multiplied with, 1 where nothing is dropped: only the rows of members that drop are drawn for,
        since drawing takes as long as their products. None where there are none."""
        probability, rows = self.source.dropout, self.source.rows
        if probability is None or rows.keys is None:
            return None
        if self._dropping is None:  # asked once: on a GPU the answer has to be waited for
            self._dropping = frozenset(s for s, rate in enumerate(probability.tolist()) if rate and s in self.members)
        if not self._dropping.intersection(rows.present):
            return None
        drop = probability[on_device(rows.slots, x.device)]
        if rows.flattens(x):
            by_row = torch.Size((len(rows), x.shape[0] // len(rows), x.shape[1]))
        elif rows.holds_one_entry_per_row(x):
            by_row = x.shape
        else:  # one slot alone, or runs_for refuses it (see MixedRowsError)
            one = torch.Size((1, *x.shape))
            key = on_device([rows.shared_key], x.device)
            return keep_mask(key, one, drop[:1], self.number).view(x.shape).to(x.dtype)
        one_of_several = x.dim() == 3 and x.shape[1] == 1 and rows.width != 1
        mask = torch.ones(by_row, dtype=x.dtype, device=x.device)
        for run in rows.runs(self._dropping):
            part = run.row_slice()
            first = rows.pooled[part] if one_of_several and rows.pooled is not None else None
            mask[part] = keep_mask(rows.keys[part], mask[part].shape, drop[part], self.number, first)
        return mask.view(x.shape)


class TokensFirst(nn.Module):
    """A module of (rows, tokens, features) where the model has (tokens, rows, features), as in XLNet and Longformer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]
