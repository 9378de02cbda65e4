"""The head of a language model, taken out of its forward: states come out, and logits are made where they are needed.

Its logits are by far the largest tensor of a forward, and most of them nobody looks at (see ``tasks.vocabulary``). So
the head is passed over while the model runs, and what it would have been given is kept. That this head, and nothing
after it, makes the logits of these states is found out, not assumed; of models that cap or scale their logits, that
is done here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lora_search.training.logits import same_logits, tolerance_of
from lora_search.training.memory import is_out_of_memory

_TOKENS_TRIED = 8


class FrozenReadout:
    """The head of ``model``, from states (tokens, features) to logits (tokens, vocabulary).

    Args:
        head: the module that makes logits.
        cap: the logits are ``cap * tanh(logits / cap)`` (Gemma); None where they are not.
        scale: what they are multiplied by (Cohere, Granite).
    """

    def __init__(self, head: nn.Module, cap: float | None = None, scale: float = 1.0) -> None:
        self.head = head
        self.cap, self.scale = cap, scale
        self._states: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        logits: Tensor = type(self.head).forward(self.head, states)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    @contextmanager
    def passed_over(self) -> Iterator[None]:
        """Inside the block the model makes no logits: what it answers is made of the states themselves."""
        self.head.forward = self._keep
        try:
            yield
        finally:
            vars(self.head).pop("forward", None)
            self._states = None

    def _keep(self, states: Tensor) -> Tensor:
        self._states = states
        return states

    def take(self) -> Tensor:
        """The states of the last forward, (rows, tokens, features)."""
        assert self._states is not None, "taken after a forward inside ``passed_over``"
        states, self._states = self._states, None
        return states


@torch.no_grad()
def find_readout(model: Any, device: torch.device) -> FrozenReadout | None:
    """The head of a language model; None where its logits are made in some other way.

    Args:
        model: as it runs.
        device: where.
    """
    head = model.get_output_embeddings()
    if head is None or vars(head).get("forward") is not None:
        return None
    some = torch.arange(1, 1 + _TOKENS_TRIED, device=device)[None]
    logits = model(input_ids=some).logits[0].float()
    config = model.config.get_text_config()
    cap, times, over = (
        getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
    )
    scale = float(times or 1.0) / float(over or 1.0)
    readout = FrozenReadout(head, cap=float(cap) if cap else None, scale=scale)
    try:
        with readout.passed_over():
            model(input_ids=some)
            states = readout.take()[0]
        made = readout(states).float()
    except Exception as error:
        # a model's own code may do anything with its logits, and fail where these have another size
        if is_out_of_memory(error):
            raise
        return None
    return readout if same_logits(made, logits, tolerance_of(next(model.parameters()).dtype)) else None
