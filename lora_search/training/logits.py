"""Whether two ways to run a model give the same logits."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_DIFFERENCE = 1e-4
"""Rows that differ by less than this, of the largest logit, differ by rounding."""


def tolerance_of(dtype: torch.dtype) -> float:
    """How far logits may differ, of the largest of them, by the rounding of a model's precision."""
    return 1e-4 if dtype == torch.float32 else 5e-2


def without_padding(logits: Tensor, mask: Tensor) -> Tensor:
    """Of a head that answers for tokens, (rows, tokens, labels), the answers for those that are no padding, (real
    tokens, labels); of any other the logits as they are.

    Args:
        mask: (rows, tokens), 0 for padding.
    """
    return logits[mask.bool()] if logits.dim() > 2 else logits


def same_logits(logits: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether ``logits`` (rows, labels), or (tokens, labels), are the expected ones, to ``tolerance`` times the
    largest of these.

    False too where ``expected`` could not tell: where they are not finite or the same for every row, as a head of zeros
    makes them, anything might have gone into that head.
    """
    largest = expected.abs().max()
    differs = (expected - expected[:1]).abs().max() > _LEAST_DIFFERENCE * largest
    if logits.shape != expected.shape or not (differs and expected.isfinite().all()):
        return False
    return bool((logits - expected).abs().max() <= tolerance * largest)
