"""Running out of memory, told apart from other errors."""

from __future__ import annotations

import torch

LEAST_TOKEN_BUDGET = 64
"""Padded tokens per micro-batch below which halving would not help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller micro-batch could have avoided the error."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    )
