"""LoRA dropout whose mask does not depend on the company a row keeps.

A mask drawn from one generator per micro-batch would change with packing and micro-batching, and two ways of
computing one cell would differ. Here each (row, token, feature) hashes a key of (cell, step, example, module) to a
uniform number, so the mask of a row is the same alone, packed, reordered or padded.
"""

from __future__ import annotations

import torch

_MULTIPLIER = 0x45D9F3B
_BITS = 31
_LOW = (1 << _BITS) - 1


def _mix(value: torch.Tensor) -> torch.Tensor:
    """A 31-bit integer hash (two rounds of xor-shift and multiply) of int64 values in [0, 2**31)."""
    for _ in range(2):
        value = ((value >> 16) ^ value) * _MULTIPLIER & _LOW
    return (value >> 16) ^ value


def keep_mask(
    keys: torch.Tensor,
    shape: torch.Size,
    probability: torch.Tensor,
    module: int,
    first_token: torch.Tensor | None = None,
) -> torch.Tensor:
    """Inverted-dropout mask: 0 with the row's drop probability, else 1 / (1 - probability).

    Args:
        keys: int64 (rows,), one key per row.
        shape: (rows, ..., features) of the tensor to be dropped.
        probability: float (rows,), each row's drop probability, in [0, 1).
        module: number that separates the masks of different modules.
        first_token: int64 (rows,), which token of its row the first here is; None for the first.

    Returns:
        float32 of ``shape``. Position (token) t of a row has the same mask whatever the padding.
    """
    rows, features = shape[0], shape[-1]
    tokens = max(1, shape[1:-1].numel())
    device = keys.device
    row = _mix((keys ^ (module * 0x9E3779B1)) & _LOW)
    position = torch.arange(tokens, device=device)
    if first_token is not None:
        position = first_token[:, None] + position
    token = _mix((row[:, None] + position * 0x27D4EB2F) & _LOW)
    value = _mix((token[:, :, None] + torch.arange(features, device=device) * 0x165667B1) & _LOW)
    drop = probability.view(rows, 1, 1)
    keep = value >= (drop * (1 << _BITS)).to(torch.int64)
    return (keep / (1.0 - drop)).view(shape).float()
