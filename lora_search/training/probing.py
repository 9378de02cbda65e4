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

_PADDING = 8


@dataclass(frozen=True)
class ForwardFacts:
    """How a model treats the rows of a batch.

    Attributes:
        sees_padding: a text's logits depend on how far it is padded, as where a layer convolves over tokens or mixes
            them by a Fourier transform.
        shared: of the modules asked about, those called on something that is not one entry per row, as DeBERTa's on its
            relative positions or Longformer's on (tokens, rows, features).
    """

    sees_padding: bool
    shared: frozenset[str]


@torch.no_grad()
def probe(model: nn.Module, storage: TokenStorage, modules: Iterable[str]) -> ForwardFacts:
    """Run the shortest texts alone and padded, and look at what the modules are given."""
    width = int(storage.lengths.min())
    wider = min(width + _PADDING, int(storage.lengths.max()))
    # as many rows as there are tokens would make rows and tokens look alike
    count = 3 if wider != 3 else 2
    examples = np.resize(np.flatnonzero(storage.lengths == width)[:count], count)
    rows = Rows([0] * count, width=wider)
    shared = set()

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and not (rows.holds_one_entry_per_row(args[0]) or rows.flattens(args[0])):
                shared.add(name)

        return model.get_submodule(name).register_forward_pre_hook(hook)

    alone = model(**storage.batch(examples, width).arguments).logits.float()
    hooks = [look(name) for name in modules]
    try:
        padded = model(**storage.batch(examples, wider).arguments).logits.float()
    finally:
        for hook in hooks:
            hook.remove()
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    same = (alone - padded).abs().max() <= tolerance * alone.abs().max()
    return ForwardFacts(sees_padding=not bool(same), shared=frozenset(shared))
