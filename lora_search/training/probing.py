"""What the engine has to know of a model's forward, found out on a few rows before the first pack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_search.adapters import Rows
from lora_search.training.inputs import PaddedBatch, TokenStorage
from lora_search.training.logits import same_logits, tolerance_of, without_padding


@dataclass(frozen=True)
class ForwardFacts:
    """How a model treats the rows of a batch.

    Attributes:
        sees_padding: a text's logits depend on how far it is padded, as where a layer convolves over tokens or mixes
            them by a Fourier transform; or that cannot be seen, as where the head gives every text the same.
        shared: of the modules asked about, those called on something that is not one entry per row, as DeBERTa's on its
            relative positions.
        tokens_first: those called on (tokens, rows, features), as XLNet's and Longformer's.
    """

    sees_padding: bool
    shared: frozenset[str]
    tokens_first: frozenset[str] = frozenset()


@torch.no_grad()
def probe(model: nn.Module, storage: TokenStorage, modules: Iterable[str]) -> ForwardFacts:
    """Run a few texts alone and padded to the longest, and look at what the modules are given."""
    longest = int(storage.lengths.max())
    # as many rows as there are tokens would make rows and tokens look alike
    count = 3 if longest != 3 else 2
    examples = np.resize(storage.spread(count), count)
    rows = Rows([0] * count, width=longest)
    shared, turned, straight = set(), set(), set()

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not args:
                return
            if rows.holds_one_entry_per_row(args[0]) or rows.flattens(args[0]):
                straight.add(name)
            elif args[0].dim() == 3 and args[0].shape[:2] == (longest, count):
                turned.add(name)
            else:
                shared.add(name)

        return model.get_submodule(name).register_forward_pre_hook(hook)

    def logits(batch: PaddedBatch) -> Tensor:
        return without_padding(model(**batch.arguments).logits, batch.arguments["attention_mask"])

    alone = [logits(storage.batch(np.array([example]), int(storage.lengths[example]))) for example in examples]
    hooks = [look(name) for name in modules]
    try:
        padded = logits(storage.batch(examples, longest)).float()
    finally:
        for hook in hooks:
            hook.remove()
    pads = bool((storage.lengths < longest).any())
    sees = pads and not same_logits(padded, torch.cat(alone).float(), tolerance_of(next(model.parameters()).dtype))
    shared |= turned & straight
    return ForwardFacts(sees_padding=sees, shared=frozenset(shared), tokens_first=frozenset(turned - shared))
