"""LoRA in its plainest form (Hu et al. 2021, equation 3): read this before ``lora_search.adapters``.

One adapter on one linear module, the rest of the model frozen. What the packed adapters compute for many at once, row
by row with the row's own matrices, they are checked against here.
"""

import torch
from torch import Tensor, nn


class PlainLora(nn.Module):
    """y = W x + b + scale * B A (mask * x), with W and b frozen.

    Args:
        frozen: any linear module.
        a: float (rank, in); drawn at random before training.
        b: float (out, rank); zero before training, so that nothing changes at first.
        scale: alpha / rank, or alpha / sqrt(rank) (rank-stabilised LoRA).
    """

    def __init__(self, frozen: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.scale = scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (..., in) to (..., out); ``mask`` (..., in) is that of dropout, which the adapter alone sees."""
        dropped = x if mask is None else x * mask
        return self.frozen(x) + self.scale * torch.nn.functional.linear(dropped @ self.a.T, self.b)
