"""What share of the variance of each module's inputs their principal components explain: what EVA spreads ranks by.

The frozen model reads a sample of the examples, one at a time, so that no padding is among the inputs and it does not
matter how a model lays out its rows; the components are found by PEFT's incremental PCA, as its own EVA does (Paischer
et al. 2024). All tokens count. The sample is drawn once, from the examples that folds are made of, and
what is trained never learns more of them than the ranks: labels are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor, nn

from lora_search.adapters import key_of
from lora_search.data import EncodedExamples
from lora_search.errors import ModelError
from lora_search.models import FrozenBase, LinearModule
from lora_search.tasks import task_of
from lora_search.training.batches import IntArray
from lora_search.training.inputs import TokenStorage, takes_types
from lora_search.training.precision import in_precision

_TOKENS = 4096
"""Of the sample, about; more hardly move the first components of inputs some hundred wide."""
_AT_ONCE = 1024
"""Tokens that the components are brought up to date with at a time."""
_SEED = 0


class _Inputs:
    """Takes what modules are given, and finds its components; of those given what the one before was given, once.

    Args:
        components: to find of each module's inputs, at most.
    """

    def __init__(self, components: int) -> None:
        self._components = components
        self._last: Tensor | None = None
        self._giver = ""
        self._waiting: dict[str, list[Tensor]] = {}
        self._found: dict[str, Any] = {}
        self.same_as: dict[str, str] = {}

    def take(self, name: str, x: Tensor) -> None:
        """What a module is given."""
        # the last one is held, so that its memory is not another's by now
        if self._last is None or self._last.data_ptr() != x.data_ptr() or self._last.shape != x.shape:
            self._last, self._giver = x, name
        giver = self.same_as.setdefault(name, self._giver)
        if giver == name:
            waiting = self._waiting.setdefault(name, [])
            waiting.append(x.detach().reshape(-1, x.shape[-1]).float())
            if sum(map(len, waiting)) >= _AT_ONCE:
                self._fit(name)

    def shares(self, name: str) -> list[float]:
        """What the components of a module's inputs explain, falling."""
        giver = self.same_as[name]
        if self._waiting.get(giver):
            self._fit(giver)
        shares: list[float] = self._found[giver].explained_variance_ratio_.tolist()
        return shares

    def _fit(self, name: str) -> None:
        from peft.utils.incremental_pca import IncrementalPCA  # PEFT takes its time

        tokens = torch.cat(self._waiting.pop(name))
        if name not in self._found:
            most = min(self._components, *tokens.shape)
            # by random projections where these are enough for it
            quick = 2 * most <= min(tokens.shape)
            self._found[name] = IncrementalPCA(most, lowrank=quick, lowrank_seed=_SEED)
        if len(tokens) >= self._found[name].n_components:  # a last few of the sample do not matter
            self._found[name].partial_fit(tokens)


@torch.no_grad()
def explained_variance(
    base: FrozenBase,
    data: EncodedExamples,
    examples: IntArray,
    modules: Sequence[LinearModule],
    components: int,
    device: torch.device,
    seed: int,
) -> dict[str, list[float]]:
    """By module, the shares of its inputs' variance that their first components explain, falling.

    Args:
        base, data: the model and what it reads.
        examples: from which the sample is drawn.
        modules: whose inputs are looked at.
        components: at most so many shares of each; fewer where inputs are narrower.
        device: to compute on.
        seed: of the sample.

    Raises:
        ModelError: the inputs of a module have no variance, or are not finite.
    """
    model = in_precision(base.model, next(base.model.parameters()).dtype, device)
    config = base.model.config.get_text_config()
    storage = TokenStorage(data, config.pad_token_id or 0, device, takes_types(base.model))
    rows = task_of(base.head.task).objective(data).rows(examples)
    drawn = Generator(Philox(key=key_of(seed, "explained variance"))).permutation(rows)
    enough = int(np.searchsorted(np.cumsum(storage.lengths[drawn]), _TOKENS)) + 1
    inputs = _Inputs(components)

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs.take(name, given[0])

        return model.get_submodule(name).register_forward_pre_hook(hook)

    watched = [watch(module.name) for module in modules]
    try:
        for row in drawn[:enough]:
            model(**storage.batch(np.array([row]), int(storage.lengths[row])).arguments)
    finally:
        for handle in watched:
            handle.remove()
    found = {module.name: inputs.shares(module.name) for module in modules}
    for name, shares in found.items():
        if not np.isfinite(shares).all():
            rule = 'must not have "eva" for a model whose modules are given all the same, or what are no numbers'
            raise ModelError.about("search.rank_pattern", rule, got=f"as {name} is")
    return found
