"""Attention for a bf16 base on CPUs: products in bf16, softmax in float32, its own backward. Attention on GPUs without
plans.

PyTorch's fused CPU attention has a slow bf16 backward, and in float32 it spends longer than these few products on the
short rows of a micro-batch. Softmax stays in float32, where its sums need it. For rows too long to keep their
weights, float32 fused attention is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import handle_torch_function, has_torch_function
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

CPU_ATTENTION = "lora_search_cpu_attention"
_LONGEST = 512
_WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def attention_without_plans(device: torch.device) -> Iterator[None]:
    """Inside the block a GPU's attention is not cuDNN's, which plans ahead for every shape of a batch: for most of a
    second on an H100, while micro-batches of a study have hundreds of shapes."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(_WITHOUT_PLANS):
        yield


class _Attention(torch.autograd.Function):
    """softmax(scale q k^T + bias) v for q, k, v (batch * heads, tokens, width) and bias (batch, 1 or heads, tokens,
    tokens).

    With p the weights and g = dL/dy: dL/dv = p^T g; dL/dp = g v^T; dL/ds = p * (dL/dp - sum(p * dL/dp)).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, heads: int) -> Tensor:
        scores = torch.bmm(q, k.transpose(1, 2)).float().mul_(scale)
        if bias is not None:
            scores.view(-1, heads, *scores.shape[1:]).add_(bias)
        weights = torch.softmax(scores, -1).to(q.dtype)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        q, k, v, weights = ctx.saved_tensors
        gv = torch.bmm(weights.transpose(1, 2), g)
        p, gp = weights.float(), torch.bmm(g, v.transpose(1, 2)).float()
        gp.sub_((p * gp).sum(-1, keepdim=True)).mul_(p).mul_(ctx.scale)
        gs = gp.to(q.dtype)
        return torch.bmm(gs, k), torch.bmm(gs.transpose(1, 2), q), gv, None, None, None


def _additive(mask: Tensor | None, causal: bool, query: Tensor) -> Tensor | None:
    """A float32 bias, 0 where attention may look and very negative where not; None where it may look everywhere."""
    lowest = torch.finfo(torch.float32).min
    if mask is None:
        if not causal:
            return None
        tokens = query.shape[2]
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()[None, None]
    if mask.is_floating_point():
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, lowest)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' own mask, made a bias here, once for all layers."""
    mask = sdpa_mask(*args, **kwargs)
    return None if mask is None else _additive(mask, False, mask)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' interface: q, k, v (batch, heads, tokens, width) in, (batch, tokens, heads, width) out."""
    unusual = any(kwargs.get(name) is not None for name in ("softcap", "position_bias", "cache", "s_aux"))
    if unusual or query.shape[2] != key.shape[2] or query.shape[2] > _LONGEST:
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
        out, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
        return out.to(query.dtype), None
    groups = int(getattr(module, "num_key_value_groups", 1))
    if groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    causal = kwargs.get("is_causal")
    causal = bool(getattr(module, "is_causal", True)) if causal is None else bool(causal)
    causal = causal and attention_mask is None
    out = short_attention(query, key, value, attention_mask, is_causal=causal, scale=kwargs.get("scaling"))
    return out.transpose(1, 2).contiguous(), None


def short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """As ``torch.nn.functional.scaled_dot_product_attention``, and like it open to a mode (see ``queries``)."""
    if has_torch_function((query, key, value)):
        return handle_torch_function(
            short_attention, (query, key, value), query, key, value, attn_mask, is_causal=is_causal, scale=scale
        )
    batch, heads, _, width = query.shape
    rows = [x.flatten(0, 1) for x in (query, key, value)]
    bias = _additive(attn_mask, is_causal, query)
    out = _Attention.apply(*rows, bias, width**-0.5 if scale is None else scale, heads)  # type: ignore[no-untyped-call]
    return out.view(batch, heads, *out.shape[1:])  # type: ignore[no-any-return]


def use_cpu_attention(model: Any) -> None:
    """Let a model of transformers attend this way, if it attends through the exchangeable interface at all."""
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(CPU_ATTENTION, _attention)
        AttentionMaskInterface.register(CPU_ATTENTION, _mask)
        model.set_attn_implementation(CPU_ATTENTION)
