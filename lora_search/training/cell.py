"""One training, as a value: everything its result depends on."""

from __future__ import annotations

from dataclasses import dataclass

from lora_search.adapters import SlotAdapter, key_of
from lora_search.models.structure import LinearModule
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey
from lora_search.training.batches import IntArray


@dataclass(frozen=True, eq=False)
class Cell:
    """(trial, repeat, fold) with its adapter, hyperparameters and examples.

    Attributes:
        key: which training.
        adapter, nuisance: the trial.
        modules: what ``adapter`` names in the model; empty trains the head alone.
        train, evaluate: examples to train on and to predict.
        seed: the experiment's.
        may_stall: whether it ends early where it teaches nothing (see ``stalling``).
    """

    key: CellKey
    adapter: AdapterSpec
    nuisance: Nuisance
    modules: tuple[LinearModule, ...]
    train: IntArray
    evaluate: IntArray
    seed: int
    may_stall: bool = False

    def depth(self, layer_count: int) -> int:
        """The lowest layer that has to be computed for this cell; the layers below it never change."""
        return min((module.layer for module in self.modules), default=layer_count - 1)

    @property
    def order_key(self) -> int:
        """Seeds the order of examples: the same for every trial of a fold."""
        return key_of(self.seed, "order", self.key.repeat, self.key.fold)

    def slot(self) -> SlotAdapter:
        """What the adapters floor needs to know of this cell."""
        return SlotAdapter(
            modules=frozenset(module.name for module in self.modules),
            rank=self.adapter.rank,
            scale=self.adapter.scale,
            key=key_of(self.seed, "weights", self.key.repeat, self.key.fold),
            dropout=self.nuisance.dropout,
        )
