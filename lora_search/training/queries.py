"""Attention from one token of a row, where what the others would find is not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lora_search.training.attention import short_attention


class OneQuery(TorchFunctionMode):
    """Inside the block, of this thread, PyTorch's attention is computed for one query of each row; zeros stand for what
    the others would find. With many tokens that is a small part of it, in the backward pass too.

    Args:
        places: int64 (rows,), which query; None for the first.
    """

    def __init__(self, places: Tensor | None) -> None:
        super().__init__()
        self.places = places
        self.attended = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (F.scaled_dot_product_attention, short_attention):
            return self._attend(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        attention: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """The queries (rows, heads, tokens, width) of one token."""
        rows, _, tokens, _ = query.shape
        if is_causal:
            places = query.new_zeros(rows, dtype=torch.int64) if self.places is None else self.places
            attn_mask = (torch.arange(key.shape[2], device=key.device) <= places[:, None])[:, None, None]
        elif attn_mask is not None and attn_mask.shape[-2] != 1:
            attn_mask = self._one(attn_mask.expand(rows, -1, -1, -1))
        found = attention(self._one(query), key, value, attn_mask=attn_mask, dropout_p=dropout_p, **kwargs)
        self.attended = True
        if self.places is None:
            return F.pad(found, (0, 0, 0, tokens - 1))
        spread = found.new_zeros(rows, tokens, *found.shape[1::2])
        every = torch.arange(rows, device=found.device)
        return spread.index_put((every, self.places), found[:, :, 0]).transpose(1, 2)

    def _one(self, value: Tensor) -> Tensor:
        """(rows, heads, tokens, ...) as (rows, heads, 1, ...)."""
        if self.places is None:
            return value[:, :, :1]
        return value[torch.arange(len(value), device=value.device), :, self.places].unsqueeze(2)
