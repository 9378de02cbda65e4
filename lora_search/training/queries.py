"""Attention from one token of a row, where what the others would find is not read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lora_search.training.attention import short_attention


def one_token(value: Tensor, places: Tensor | None) -> Tensor:
    """(rows, tokens, ...) as (rows, 1, ...).

    Args:
        value: of every token.
        places: int64 (rows,), which token of each row; None for the first.
    """
    if places is None:
        return value[:, :1]
    return value[torch.arange(len(value), device=value.device), places].unsqueeze(1)


def among_all(value: Tensor, places: Tensor | None, tokens: int) -> Tensor:
    """(rows, 1, ...) as (rows, tokens, ...), zeros where there was nothing: what ``one_token`` took, put back."""
    if places is None:
        return F.pad(value, (0, 0) * (value.dim() - 2) + (0, tokens - 1))
    every = torch.arange(len(value), device=value.device)
    return value.new_zeros(len(value), tokens, *value.shape[2:]).index_put((every, places), value[:, 0])


class _Attending(TorchFunctionMode, ABC):
    """Inside the block, of this thread, PyTorch's attention is computed by ``attend``, given it and its arguments."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (F.scaled_dot_product_attention, short_attention):
            return self.attend(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @abstractmethod
    def attend(self, attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What is computed instead."""


class CheckedAttention(_Attending):
    """Inside the block, of this thread, PyTorch's attention is not given queries, keys, values and a mask that do not
    belong together: a GPU's kernels read past the end of some of these.

    Raises:
        ValueError: by the attention, given such.
    """

    def attend(self, attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self._check(*args, **kwargs)
        return attention(*args, **kwargs)

    def _check(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """q, k, v (rows, heads, tokens, width), mask to be expanded to (rows, heads, tokens of q, tokens of k)."""
        fits = key.shape[-2] == value.shape[-2] and len(query) == len(key) == len(value)
        if attn_mask is not None:
            wanted = (len(query), query.shape[1], query.shape[-2], key.shape[-2])
            given = (1,) * (len(wanted) - attn_mask.dim()) + tuple(attn_mask.shape)
            fits &= all(size in (1, full) for size, full in zip(given, wanted, strict=True))
        if not fits:
            mask = None if attn_mask is None else tuple(attn_mask.shape)
            shapes = ", ".join(str(tuple(part.shape)) for part in (query, key, value))
            raise ValueError(f"attention of {shapes} with a mask {mask}: these do not belong together")


class OneQuery(_Attending):
    """Inside the block, of this thread, PyTorch's attention is computed for one query of each row; zeros stand for what
    the others would find. With many tokens that is a small part of it, in the backward pass too.

    Args:
        places: int64 (rows,), which query; None for the first.
    """

    def __init__(self, places: Tensor | None) -> None:
        super().__init__()
        self.places = places
        self.attended = False

    def attend(
        self,
        attention: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """q, k, v (rows, heads, tokens, width)."""
        rows, _, tokens, _ = query.shape
        if is_causal:
            places = query.new_zeros(rows, dtype=torch.int64) if self.places is None else self.places
            attn_mask = (torch.arange(key.shape[2], device=key.device) <= places[:, None])[:, None, None]
        elif attn_mask is not None and attn_mask.shape[-2] != 1:
            attn_mask = self._one(attn_mask.expand(rows, -1, -1, -1))
        found = attention(self._one(query), key, value, attn_mask=attn_mask, **kwargs)
        self.attended = True
        return among_all(found.transpose(1, 2), self.places, tokens).transpose(1, 2)

    def _one(self, value: Tensor) -> Tensor:
        """(rows, heads, tokens, ...) as (rows, heads, 1, ...)."""
        return one_token(value.transpose(1, 2), self.places).transpose(1, 2)
