"""The modules that stand in for a model's linear modules while a pack is attached.

``PackedLora`` stands around a frozen linear module and adds each row's own slot's update. It reads the pack's *compute*
matrices and writes into its *gradient* matrices (see ``pack.py``), past autograd's own leaves: with many slots and
micro-batches the bookkeeping of thousands of small leaves would cost more than their arithmetic. Modules that a model
gives the same input are computed together (``SharedInput``): fewer and larger operations.

Shapes: x (rows, ..., in), A (slots, rank, in), B (slots, out, rank), rank the largest of the pack; the rows of A and
columns of B past a slot's own rank are zero, their gradients are products with zero, and so they stay zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lora_search.adapters.dropout import keep_mask
from lora_search.adapters.rows import Rows, Run, stacked, unstacked
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
    in B), for all modules that are given the same x: one product with all their A's and one with each B.

    With g = dL/dy: dL/dx = sum over modules of g W + mask * (g B) A, dL/dA = (g B)^T (x * mask), dL/dB = g^T (x A^T).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, shared: SharedInput, mask: Tensor | None) -> Any:
        shares = shared.shares(x)
        # without .data it may be a view, and the model could not change it in place, as it may its own module's
        outputs = {member: member.module.frozen(x).contiguous().data for member in shared.working()}
        dropped = x if mask is None else x * mask
        inner = []
        for run, parts in shares:
            u = torch.bmm(stacked(dropped, run), run.of_slots(shared.a).transpose(1, 2))
            for member, part in parts:
                b = part.of_slots(member.module.b.compute)
                unstacked(outputs[member], part).baddbmm_(member.of(u, run, part), b.transpose(1, 2))
            inner.append(u)
        ctx.shared, ctx.shares, ctx.members = shared, shares, tuple(outputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dropped, mask, *inner)
        return tuple(outputs.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        shared: SharedInput = ctx.shared
        dropped, mask, *inner = ctx.saved_tensors
        arrived = {m: g.contiguous() for m, g in zip(ctx.members, gradients, strict=True) if g is not None}
        gx: Tensor | None = None
        if ctx.needs_input_grad[0]:
            for member, g in arrived.items():
                gx = member.module.frozen_input_gradient(g, gx)
        through = None if gx is None or mask is None else torch.zeros_like(gx)
        for (run, parts), u in zip(ctx.shares, inner, strict=True):
            v = None
            for member, part in parts:
                if member not in arrived:
                    continue
                gs = stacked(arrived[member], part)
                own = torch.bmm(gs, part.of_slots(member.module.b.compute))
                gb = torch.bmm(member.of(u, run, part).transpose(1, 2), gs)
                part.of_slots(member.module.b.gradient).add_(gb.transpose(1, 2))
                if own.shape == u.shape:
                    v = own
                else:
                    v = torch.zeros_like(u) if v is None else v
                    member.of(v, run, part).copy_(own)
            if v is None:
                continue
            # products shaped (wide, rank) run faster on CPUs than (rank, wide)
            ga = torch.bmm(stacked(dropped, run).transpose(1, 2), v)
            for member, part in parts:
                part.of_slots(member.module.a.gradient).add_(member.of(ga, run, part).transpose(1, 2))
            if gx is not None:
                unstacked(gx if through is None else through, run).baddbmm_(v, run.of_slots(shared.a))
        if gx is not None and through is not None:
            gx.add_(through * mask)
        return gx, None, None, None


@dataclass(frozen=True, eq=False)
class _Member:
    """A module among those that share an input, and which columns of their inner products are its own."""

    module: PackedLora
    columns: slice

    def of(self, inner: Tensor, run: Run, part: Run) -> Tensor:
        """What of (slots of a run, ..., columns) belongs to the slots of a part of the run and to this module."""
        if part.slots < run.slots:
            first = part.first_slot - run.first_slot
            inner = inner[first : first + part.slots]
        whole = self.columns.stop - self.columns.start == inner.shape[-1]
        return inner if whole else inner[:, :, self.columns]


_Share = tuple[Run, list[tuple[_Member, Run]]]
"""A run of rows that some module adapts, and which module adapts which part of it."""


class SharedInput:
    """Modules that a model gives the same input, as a rule query, key and value: the first that is called computes for
    all, and the others find their results here.

    Args:
        modules: in any order; one alone is computed as they are.
        a: A of every slot, one module's after the other's, (slots, modules * rank, in).
    """

    def __init__(self, modules: Sequence[PackedLora], a: Tensor) -> None:
        rank = a.shape[1] // len(modules)
        self.a = a
        self.source = modules[0].source
        self.members = frozenset().union(*(module.members for module in modules))
        self._all = [_Member(module, slice(i * rank, (i + 1) * rank)) for i, module in enumerate(modules)]
        self._given: Tensor | None = None
        self._results: dict[int, Tensor] = {}

    def working(self) -> list[_Member]:
        """The modules that some row here adapts."""
        return [member for member in self._all if member.module.works]

    def shares(self, x: Tensor) -> list[_Share]:
        """How the rows of ``x`` are computed: run by run."""
        rows = self.source.rows
        runs_of = [(member, rows.runs_for(x, member.module.members)) for member in self.working()]
        return [
            (run, [(member, part) for member, runs in runs_of for part in run.parts(runs)])
            for run in rows.runs_for(x, self.members)
        ]

    def of_one(self, module: PackedLora, x: Tensor, mask: Tensor | None) -> Tensor:
        """What a module, the only one here, makes of ``x``."""
        (y,) = _LoraFunction.apply(x, module.source.anchor, self, mask)  # type: ignore[no-untyped-call]
        return y  # type: ignore[no-any-return]

    def of_all(self, module: PackedLora, x: Tensor) -> Tensor:
        """What a module makes of ``x``, which was computed when the first of them was given the same."""
        if self._given is not x or id(module) not in self._results:
            outputs = _LoraFunction.apply(x, module.source.anchor, self, None)  # type: ignore[no-untyped-call]
            self._given = x
            self._results = {id(m.module): y for m, y in zip(self.working(), outputs, strict=True)}
        y = self._results.pop(id(module))
        if not self._results:
            self._given = None
        return y


class PackedLora(nn.Module):
    """A frozen linear module with, for every slot in ``members``, its low-rank update.

    Args:
        frozen: nn.Linear, or transformers' Conv1D, whose weight is stored (in, out).
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
        self.transposed = not isinstance(frozen, nn.Linear)
        self._alone = SharedInput([self], a.compute)
        self._together: SharedInput | None = None
        self._dropping: frozenset[int] | None = None

    def __getattr__(self, name: str) -> Any:
        """What else a model asks of its linear module (the dtype of its weight, say) the frozen one answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("frozen"), name)

    def join(self, together: SharedInput) -> None:
        """From now on be computed together with others, where no row drops any of its input."""
        self._together = together

    @property
    def works(self) -> bool:
        """Whether some row here adapts this module."""
        return not self.members.isdisjoint(self.source.rows.present)

    def forward(self, x: Tensor) -> Tensor:
        if not self.works:
            return self.frozen(x)  # type: ignore[no-any-return]
        if self._together is not None and self.source.dropout is None:
            return self._together.of_all(self, x)
        return self._alone.of_one(self, x, self._mask(x))

    def frozen_input_gradient(self, g: Tensor, onto: Tensor | None = None) -> Tensor:
        """dL/dx through the frozen weight alone; added to ``onto`` where that is given, in place."""
        weight: Tensor = self.frozen.weight  # type: ignore[assignment]
        if self.transposed:
            weight = weight.t()
        if onto is None:
            return g @ weight
        onto.view(-1, onto.shape[-1]).addmm_(g.view(-1, g.shape[-1]), weight)
        return onto

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
