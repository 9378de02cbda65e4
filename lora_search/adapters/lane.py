"""A lane: one process that computes rows of a pack, beside others that compute other rows of the same step.

Values are the pack's and the same in every lane; a lane has its own current rows and its own gradients. The pack adds
these up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from lora_search.adapters.heads import PackedLayerNorm, PackedLinear
from lora_search.adapters.initial import key_of
from lora_search.adapters.layers import Matrices, PackedLora, TokensFirst
from lora_search.adapters.rows import Rows
from lora_search.adapters.variants import Biases, Magnitude, PackedVariant

_NUMBER_BITS = 31


class Slots(Protocol):
    """What a lane needs of the pack it computes with.

    Attributes:
        target_modules, head_modules: names of the modules that run with the slots' parameters.
        dropout: see ``RowSource``.
        tokens_first: the modules that the model calls on (tokens, rows, features).
    """

    @property
    def tokens_first(self) -> frozenset[str]: ...

    @property
    def target_modules(self) -> tuple[str, ...]: ...

    @property
    def head_modules(self) -> tuple[str, ...]: ...

    @property
    def dropout(self) -> Tensor | None: ...

    def members(self, module: str) -> frozenset[int]:
        """The slots that train parameters of a module."""

    def has(self, module: str, kind: str) -> bool:
        """Whether a module has a parameter of a kind: ``bias``, say."""

    def matrices(self, module: str, kind: str, gradients: Tensor) -> Matrices:
        """One parameter of every slot, its gradient in ``gradients`` (slots, columns)."""

    def magnitude(self, module: str, gradients: Tensor) -> Magnitude | None:
        """The magnitudes of every slot, their gradient in ``gradients``; None where none has any."""

    def biases(self, module: str, gradients: Tensor) -> Biases | None:
        """The biases of every slot, their gradient in ``gradients``; None where none trains its own."""


class Lane:
    """A place where micro-batches of a pack are computed.

    Args:
        pack: whose values are computed with.
        model: changed only while attached.
        gradients: (slots, parameters), where this lane's gradients are added.
    """

    def __init__(self, pack: Slots, model: nn.Module, gradients: Tensor) -> None:
        self.pack = pack
        self.model = model
        self.gradients = gradients
        self.rows = Rows(())
        self.anchor = torch.zeros((), device=gradients.device, requires_grad=True)

    @property
    def dropout(self) -> Tensor | None:
        """See ``RowSource``."""
        return self.pack.dropout

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The model runs with the pack's slots inside the block, and is as it was after it."""
        originals: dict[str, nn.Module] = {}
        try:
            for name in (*self.pack.target_modules, *self.pack.head_modules):
                originals[name] = self.model.get_submodule(name)
                self.model.set_submodule(name, self._stand_in(name, originals[name]))
            yield
        finally:
            for name, original in originals.items():
                self.model.set_submodule(name, original)

    def _stand_in(self, name: str, original: nn.Module) -> nn.Module:
        stand_in = self._row_by_row(name, original)
        return TokensFirst(stand_in) if name in self.pack.tokens_first else stand_in

    def _row_by_row(self, name: str, original: nn.Module) -> nn.Module:
        members = self.pack.members(name)
        if name in self.pack.target_modules:
            a, b = self._matrices(name, "lora_A"), self._matrices(name, "lora_B")
            number = key_of(name) % (1 << _NUMBER_BITS)
            magnitude = self.pack.magnitude(name, self.gradients)
            biases = self.pack.biases(name, self.gradients)
            if magnitude is None and biases is None:
                return PackedLora(original, a, b, self, members, number)
            return PackedVariant(original, a, b, self, members, number, magnitude, biases)
        weight = self._matrices(name, "weight")
        bias = self._matrices(name, "bias") if self.pack.has(name, "bias") else None
        if isinstance(original, nn.LayerNorm):
            return PackedLayerNorm(weight, bias, original.eps, self, members)
        return PackedLinear(weight, bias, self, members)

    def _matrices(self, module: str, kind: str) -> Matrices:
        return self.pack.matrices(module, kind, self.gradients)
