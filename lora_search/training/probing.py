"""What the engine has to know of a model's forward, found out on a few rows before the first pack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_search.adapters import Rows
from lora_search.training.inputs import TokenStorage
from lora_search.training.logits import same_logits, tolerance_of


@dataclass(frozen=True)
class ForwardFacts:
    """How a model treats the rows of a batch.

    Attributes:
        sees_padding: a text's logits depend on how far it is padded, as where a layer convolves over tokens or mixes
            them by a Fourier transform; or that cannot be seen, as where the head gives every text the same.
        shared: of the modules asked about, those called on something that is not one entry per row, as DeBERTa's on its
            relative positions or Longformer's on (tokens, rows, features).
        same_input: of the same, groups of those that are given the very same tensor, as query, key and value are.
    """

    sees_padding: bool
    shared: frozenset[str]
    same_input: tuple[tuple[str, ...], ...] = ()


@torch.no_grad()
def probe(model: nn.Module, storage: TokenStorage, modules: Iterable[str]) -> ForwardFacts:
    """Run a few texts alone and padded to the longest, and look at what the modules are given."""
    longest = int(storage.lengths.max())
    # as many rows as there are tokens would make rows and tokens look alike
    count = 3 if longest != 3 else 2
    examples = np.resize(storage.spread(count), count)
    rows = Rows([0] * count, width=longest)
    shared = set()
    given: dict[str, list[torch.Tensor]] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            given.setdefault(name, []).extend(args[:1])
            if args and not (rows.holds_one_entry_per_row(args[0]) or rows.flattens(args[0])):
                shared.add(name)

        return model.get_submodule(name).register_forward_pre_hook(hook)

    alone = [
        model(**storage.batch(np.array([example]), int(storage.lengths[example])).arguments).logits
        for example in examples
    ]
    hooks = [look(name) for name in modules]
    try:
        padded = model(**storage.batch(examples, longest).arguments).logits.float()
    finally:
        for hook in hooks:
            hook.remove()
    pads = bool((storage.lengths < longest).any())
    sees = pads and not same_logits(padded, torch.cat(alone).float(), tolerance_of(next(model.parameters()).dtype))
    return ForwardFacts(sees, frozenset(shared), _same_input(given))


def _same_input(given: dict[str, list[torch.Tensor]]) -> tuple[tuple[str, ...], ...]:
    """Groups of modules that were called once, on one tensor; it is still held, so that no other took its place."""
    groups: dict[int, list[str]] = {}
    for name, tensors in given.items():
        if len(tensors) == 1:
            groups.setdefault(id(tensors[0]), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
