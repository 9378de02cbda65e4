"""A lane: one process that computes rows of a pack, beside others that compute other rows of the same step.

Values are the pack's and the same in every lane; a lane has its own current rows and its own gradients. The pack adds
these up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lora_search.adapters.heads import PackedLayerNorm, PackedLinear
from lora_search.adapters.initial import key_of
from lora_search.adapters.layers import Matrices, PackedLora, SharedInput
from lora_search.adapters.rows import Rows

if TYPE_CHECKING:
    from lora_search.adapters.pack import AdapterPack

_NUMBER_BITS = 31


class Lane:
    """A place where micro-batches of a pack are computed.

    Args:
        pack: whose values are computed with.
        model: changed only while attached.
        gradients: (slots, parameters), where this lane's gradients are added.
    """

    def __init__(self, pack: AdapterPack, model: nn.Module, gradients: Tensor) -> None:
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
        adapted: dict[str, PackedLora] = {}
        try:
            for name in (*self.pack.target_modules, *self.pack.head_modules):
                originals[name] = self.model.get_submodule(name)
                stand_in = self._stand_in(name, originals[name])
                self.model.set_submodule(name, stand_in)
                if isinstance(stand_in, PackedLora):
                    adapted[name] = stand_in
            for names in self.pack.shared_inputs:
                together = SharedInput([adapted[name] for name in names], self.pack.stacked_a(names))
                for name in names:
                    adapted[name].join(together)
            yield
        finally:
            for name, original in originals.items():
                self.model.set_submodule(name, original)

    def _stand_in(self, name: str, original: nn.Module) -> nn.Module:
        if name in self.pack.target_modules:
            members = frozenset(slot for slot, adapter in enumerate(self.pack.adapters) if name in adapter.modules)
            a, b = self._matrices(name, "lora_A"), self._matrices(name, "lora_B")
            return PackedLora(original, a, b, self, members, key_of(name) % (1 << _NUMBER_BITS))
        everyone = frozenset(range(len(self.pack.adapters)))
        weight = self._matrices(name, "weight")
        bias = self._matrices(name, "bias") if self.pack.has(name, "bias") else None
        if isinstance(original, nn.LayerNorm):
            return PackedLayerNorm(weight, bias, original.eps, self, everyone)
        return PackedLinear(weight, bias, self, everyone)

    def _matrices(self, module: str, kind: str) -> Matrices:
        return self.pack.matrices(module, kind, self.gradients)
