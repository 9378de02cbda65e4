"""One training, as a value: everything its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lora_search.adapters import SlotAdapter, key_of
from lora_search.models.structure import LinearModule
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey, CellResult
from lora_search.tasks import Objective
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
        ranks: of modules whose rank is not the adapter's, by name.
    """

    key: CellKey
    adapter: AdapterSpec
    nuisance: Nuisance
    modules: tuple[LinearModule, ...]
    train: IntArray
    evaluate: IntArray
    seed: int
    may_stall: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)

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
            use_dora=self.adapter.use_dora,
            trains_bias=self.adapter.bias == "lora_only",
            ranks=self.ranks,
        )


@dataclass
class Tally:
    """What a training has come to so far.

    Attributes:
        steps: optimizer steps taken.
        tokens: real tokens trained on.
        last_epoch_loss: of the last epoch, so far; at its end the mean over its units.
        failure: why it failed; None while it has not.
    """

    steps: int = 0
    tokens: int = 0
    last_epoch_loss: float = 0.0
    failure: str | None = None

    def record(self, loss: float, share: float, tokens: int, planned: int, epochs: int) -> None:
        """Add a step.

        Args:
            loss: mean over the units of its batch.
            share: of the units of an epoch that its batch holds.
            tokens: of its batch.
            planned, epochs: steps and epochs of the whole training.
        """
        self.steps += 1
        self.tokens += tokens
        if not np.isfinite(loss):
            self.failure = f"the loss was {loss} at step {self.steps} of {planned}"
        if self.steps > planned - planned // epochs:
            self.last_epoch_loss += loss * share


def units_of(objective: Objective, examples: IntArray) -> int:
    """What the loss of a batch of these examples is a mean over."""
    return max(1, int(objective.units[examples].sum()))


def cell_result(
    cell: Cell,
    objective: Objective,
    tally: Tally,
    predicted: np.ndarray,
    *,
    seconds: float,
    wall_seconds: float,
    pack: int,
    pack_cells: int,
) -> CellResult:
    """What a training left behind, scored.

    Args:
        cell: it was. objective: it aimed for. tally: of its steps.
        predicted: (examples, columns), for ``cell.evaluate``.
        seconds, wall_seconds, pack, pack_cells: for the record.
    """
    failure = tally.failure
    if failure is None and not np.isfinite(predicted).all():
        failure = "the trained model's predictions are not numbers"
    complete = failure is None
    return CellResult(
        key=cell.key,
        state="complete" if complete else "failed",
        scores=objective.scores(cell.evaluate, predicted) if complete else {},
        train_loss=tally.last_epoch_loss if complete else float("nan"),
        examples=cell.evaluate if complete else np.empty(0, dtype=np.int64),
        probabilities=predicted if complete else predicted[:0],
        train_examples=len(cell.train),
        steps=tally.steps,
        tokens=tally.tokens,
        seconds=seconds,
        wall_seconds=wall_seconds,
        pack=pack,
        pack_cells=pack_cells,
        failure=failure,
    )
