"""The modules that stand in for a model's head while a pack is attached: every slot trains its own copy.

They compute in the storage's precision (float32) whatever the base computes in, and write gradients past autograd's own
leaves, as the adapters do (see ``layers``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_search.adapters.layers import Matrices, RowSource
from lora_search.adapters.rows import stacked, unstacked


class _HeadLinearFunction(torch.autograd.Function):
    """y = x W^T + b with the row's own W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: PackedLinear) -> Tensor:
        runs = module.source.rows.runs_for(x, module.members)
        x32 = x.to(module.weight.compute.dtype).contiguous()
        y = x32.new_empty(*x.shape[:-1], module.weight.compute.shape[1])
        for run in runs:
            slots = run.slot_slice()
            out = torch.bmm(stacked(x32, run), module.weight.compute[slots].transpose(1, 2))
            if module.bias is not None:
                out.add_(module.bias.compute[slots].unsqueeze(1))
            unstacked(y, run).copy_(out)
        ctx.module, ctx.runs, ctx.dtype = module, runs, x.dtype
        ctx.save_for_backward(x32)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        g = gradients[0].contiguous()
        module: PackedLinear = ctx.module
        (x32,) = ctx.saved_tensors
        gx = torch.empty_like(x32) if ctx.needs_input_grad[0] else None
        for run in ctx.runs:
            slots = run.slot_slice()
            gs = stacked(g, run)
            module.weight.gradient[slots].add_(torch.bmm(gs.transpose(1, 2), stacked(x32, run)))
            if module.bias is not None:
                module.bias.gradient[slots].add_(gs.sum(1))
            if gx is not None:
                unstacked(gx, run).copy_(torch.bmm(gs, module.weight.compute[slots]))
        return None if gx is None else gx.to(ctx.dtype), None, None


class PackedLinear(nn.Module):
    """A linear head module of which every slot has its own, weight (slots, out, in), bias (slots, out) or none.

    Computes in the storage's precision (float32) whatever the base computes in.
    """

    def __init__(self, weight: Matrices, bias: Matrices | None, source: RowSource, members: frozenset[int]) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.source, self.members = source, members

    def forward(self, x: Tensor) -> Tensor:
        return _HeadLinearFunction.apply(x, self.source.anchor, self)  # type: ignore[no-any-return,no-untyped-call]


class _HeadNormFunction(torch.autograd.Function):
    """y = normalised x * weight + bias with the row's own weight and bias (Ba et al. 2016)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: PackedLayerNorm) -> Tensor:
        runs = module.source.rows.runs_for(x, module.members)
        x32 = x.to(module.weight.compute.dtype).contiguous()
        deviation = (x32.var(-1, correction=0, keepdim=True) + module.eps).rsqrt()
        normal = (x32 - x32.mean(-1, keepdim=True)) * deviation
        y = torch.empty_like(normal)
        for run in runs:
            slots = run.slot_slice()
            out = stacked(normal, run) * module.weight.compute[slots].unsqueeze(1)
            if module.bias is not None:
                out = out + module.bias.compute[slots].unsqueeze(1)
            unstacked(y, run).copy_(out)
        ctx.module, ctx.runs, ctx.dtype = module, runs, x.dtype
        ctx.save_for_backward(normal, deviation)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        g = gradients[0].contiguous()
        module: PackedLayerNorm = ctx.module
        normal, deviation = ctx.saved_tensors
        gn = torch.empty_like(normal)
        for run in ctx.runs:
            slots = run.slot_slice()
            gs = stacked(g, run)
            module.weight.gradient[slots].add_((gs * stacked(normal, run)).sum(1))
            if module.bias is not None:
                module.bias.gradient[slots].add_(gs.sum(1))
            unstacked(gn, run).copy_(gs * module.weight.compute[slots].unsqueeze(1))
        if not ctx.needs_input_grad[0]:
            return None, None, None
        gx = deviation * (gn - gn.mean(-1, keepdim=True) - normal * (gn * normal).mean(-1, keepdim=True))
        return gx.to(ctx.dtype), None, None


class PackedLayerNorm(nn.Module):
    """A layer norm in the head, of which every slot has its own weight and bias, (slots, features)."""

    def __init__(
        self, weight: Matrices, bias: Matrices | None, eps: float, source: RowSource, members: frozenset[int]
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = weight, bias, eps
        self.source, self.members = source, members

    def forward(self, x: Tensor) -> Tensor:
        return _HeadNormFunction.apply(x, self.source.anchor, self)  # type: ignore[no-any-return,no-untyped-call]
