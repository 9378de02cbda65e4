"""What a language model answers to some of its tokens, without the logits of all of them.

A vocabulary is large: the logits of a micro-batch, and their gradient, would be its largest tensors by far (1,024
tokens of 150,000 logits each are 600 MB in float32, and as much again for the gradient). Only those of trained tokens
are needed, and of these only two numbers and the gradient of the state they are made from. So they are computed for
some tokens at a time, and the gradient with them: the head is frozen, and what a token's loss is does not depend on
other tokens. Nothing is computed twice (the idea of Hsu et al. 2024, Liger Kernel, for a head that is frozen).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Readout = Callable[[Tensor], Tensor]
"""From states (tokens, features) to logits (tokens, vocabulary), each token by itself; nothing of it is trained."""

LOGITS_AT_ONCE = 2**24
"""So many logits are in hand at a time, 64 MiB of them in float32."""


def token_nats(states: Tensor, targets: Tensor, readout: Readout) -> Tensor:
    """Negative log probability of the right token, float32 (tokens,), through which gradients flow to the states.

    Args:
        states: (tokens, features).
        targets: int64 (tokens,), ids of the right tokens.
        readout: of the model.
    """
    nats: Tensor = _TokenNats.apply(states, targets, readout)  # type: ignore[no-untyped-call]
    return nats


@torch.no_grad()
def token_answers(states: Tensor, targets: Tensor, readout: Readout) -> tuple[Tensor, Tensor]:
    """The nats of the right tokens and whether they are the most probable ones, float32 (tokens,) both.

    Args:
        states, targets, readout: as in ``token_nats``.
    """
    nats, right = torch.zeros(2, len(states), device=states.device)
    for part in _parts(states, readout):
        logits = readout(states[part]).float()
        nats[part] = F.cross_entropy(logits, targets[part], reduction="none")
        right[part] = (logits.argmax(-1) == targets[part]).float()
    return nats, right


class _TokenNats(torch.autograd.Function):
    """d nats_i / d state_i is known as soon as the logits of token i are, and is all that is kept of them."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, readout: Readout) -> Tensor:
        nats = torch.empty(len(states), device=states.device)
        gradients = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for part in _parts(states, readout):
            some = states[part].detach().requires_grad_(gradients is not None)
            with torch.set_grad_enabled(gradients is not None):
                losses = F.cross_entropy(readout(some).float(), targets[part], reduction="none")
                if gradients is not None:
                    (gradients[part],) = torch.autograd.grad(losses.sum(), some)
            nats[part] = losses.detach()
        ctx.gradients = gradients
        return nats

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.gradients * incoming[0].unsqueeze(1)).to(ctx.gradients.dtype), None, None


def _parts(states: Tensor, readout: Readout) -> list[slice]:
    """The tokens, so many at a time as there is room for their logits."""
    if not len(states):
        return []
    with torch.no_grad():
        width = readout(states[:1]).shape[-1]
    step = max(1, LOGITS_AT_ONCE // width)
    return [slice(start, start + step) for start in range(0, len(states), step)]
