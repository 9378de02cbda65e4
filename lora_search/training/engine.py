"""Trains packs of cells over one frozen base.

One step of a pack is one step of each of its cells: every cell's next batch, its loss the mean over that batch, its
gradients clipped, its own AdamW update. The rows of all cells are computed together, in micro-batches, from the
lowest adapted layer on; a cell's numbers are those of training it alone, but for the order of floating-point
additions.

The engine does not know trials or studies: it gets cells and gives results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_search.data import EncodedExamples
from lora_search.models.base import FrozenBase
from lora_search.models.quantization import scales_of
from lora_search.spec.experiment import TrainingSpec
from lora_search.spec.facts import Budgets
from lora_search.tasks import Objective, ReadsStates, task_of
from lora_search.training.batches import IntArray, MicroBatch
from lora_search.training.cell import Cell
from lora_search.training.footprint import kept_for_backward, kept_of, largest_step, step_bytes
from lora_search.training.frozen_forward import FrozenForward, running_model
from lora_search.training.inputs import TokenStorage, takes_types
from lora_search.training.lanes import possible_lanes
from lora_search.training.memory import is_out_of_memory, release_memory
from lora_search.training.memory_budget import MemoryBudget
from lora_search.training.pack_run import Listener, PackRun, TrainedCell


@dataclass(frozen=True)
class EngineSettings:
    """How a result is computed, as opposed to what: nothing here changes a result beyond rounding.

    Attributes:
        device, dtype: where and in which precision the base runs.
        token_budget: most padded tokens of a training micro-batch to begin with, None for what suits the device;
            evaluation takes four times as many.
        checkpointing: checkpoint from the beginning, where the experiment leaves it open.
        prefix_cache: keep the states entering the lowest adapted layer instead of recomputing the layers below.
        cache_memory: bytes of such states kept in memory, past which a file in ``cache_folder`` is used; None for
            2 GiB, or a quarter of what is free where that is less.
        lanes: processes that compute micro-batches at the same time, where that is possible (see ``lanes``).
        pooled_token: compute the last layer for the token the head reads, where that is one (see ``pooled``).
    """

    device: torch.device
    dtype: torch.dtype
    token_budget: int | None = None
    checkpointing: bool = False
    prefix_cache: bool = True
    cache_memory: int | None = None
    cache_folder: Path | None = None
    lanes: int = 1
    pooled_token: bool = True


class Engine:
    """Trains cells of one experiment over one base.

    Args:
        base: the frozen model, with the head of the task that it is trained for; left as it is.
        data: the encoded dataset.
        training: what is the same for every cell.
        settings: device, precision, budgets.

    Raises:
        MachineError: the model cannot compute in the precision the experiment names. Where it names none, the base
            runs in float32 instead; ``settings`` says what it came to.
    """

    def __init__(
        self, base: FrozenBase, data: EncodedExamples, training: TrainingSpec, settings: EngineSettings
    ) -> None:
        self.base = base
        self.training = training
        config = base.model.config.get_text_config()
        self.objective: Objective = task_of(base.head.task).objective(data)
        storage = TokenStorage(data, config.pad_token_id or 0, settings.device, takes_types(base.model))
        running = running_model(base, storage, settings.dtype, asked=training.precision)
        self.settings = replace(settings, dtype=running.dtype)
        self.lanes = possible_lanes(settings.lanes, settings.device)
        self.memory = MemoryBudget(
            base.structure,
            data.widths,
            training.batch_size,
            settings.device,
            running.dtype,
            self.lanes,
            token_budget=settings.token_budget,
            checkpointing=settings.checkpointing,
            chosen=training.gradient_checkpointing,
        )
        self.forward = FrozenForward(
            base,
            running,
            storage,
            prefix_cache=settings.prefix_cache,
            cache_memory_bytes=settings.cache_memory,
            cache_folder=settings.cache_folder,
            cache_tokens=4 * self.memory.token_budget,
            pooled_token=settings.pooled_token,
        )
        if self.forward.readout is not None and isinstance(self.objective, ReadsStates):
            self.objective = self.objective.through(self.forward.readout)
        self._precision_note = running.note
        self.split_packs = False
        self.padded_tokens = 0
        self.real_tokens = 0

    @property
    def budgets(self) -> Budgets:
        """What memory was found to allow, as the settings of that name: an engine made with them begins there."""
        return {"token_budget": self.memory.token_budget, "checkpointing": self.memory.checkpointing}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how results were computed, as sentences."""
        notes = [note for note in (self._precision_note, self.forward.prefix.note) if note is not None]
        name = type(self.forward.model).__name__
        if self.memory.checkpointing and self.memory.automatic:
            notes.append(f"memory is short for {name}: its layers are computed again in each backward, which is slower")
        if self.forward.facts.sees_padding:
            notes.append(f"{name} sees padding, so only texts of equal length are computed together, which is slower")
        if self.base.head.frozen and self.forward.readout is None:
            notes.append(f"{name} makes its logits in a way of its own: those of all tokens are held at once")
        if self.split_packs:
            notes.append(f"{name} is trained with one adapter per micro-batch, which is slower")
        return tuple(notes)

    def train(self, cells: Sequence[Cell], pack: int, listener: Listener | None = None) -> list[TrainedCell]:
        """Train cells together and score each on its own examples.

        Where memory runs out before the first step, or although each is cut as small as can be, what is cached is
        forgotten and half of the cells are trained after the others.

        Args:
            cells: the pack; best if they share a fold and their lowest adapted layer.
            pack: its number, for the record.
            listener: called after every step.

        Returns:
            One result per cell, in order; of several smaller packs where memory has no room for all at once. A cell
            whose loss stopped being a number is ``failed``; the others are not affected.
        """
        try:
            return self._train(cells, pack, listener)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            forgotten = self.forward.prefix.forget()
            if len(cells) == 1 and not forgotten:
                raise
        release_memory(self.settings.device)
        if len(cells) == 1:
            return self._train(cells, pack, listener)
        half = len(cells) // 2
        return [*self.train(cells[:half], pack, listener), *self.train(cells[half:], pack, listener)]

    def _train(self, cells: Sequence[Cell], pack: int, listener: Listener | None) -> list[TrainedCell]:
        run = self._run_of(cells, pack, listener)
        self.memory.provide_for(cells)  # with what the pack itself needs already taken
        trained = run.run()
        self.padded_tokens += run.padded_tokens
        self.real_tokens += run.real_tokens
        self.split_packs |= run.split
        return trained

    def predict(self, cell: Cell, state: dict[str, Tensor], examples: IntArray) -> np.ndarray:
        """What a trained cell predicts, float32 (examples, columns) as the task has it."""
        run = self._run_of([cell], pack=-1, listener=None)
        run.pack.load(0, state)
        return run.predict([examples])[0]

    def step_bytes(self, cell: Cell) -> int:
        """What the largest step of a cell holds, trained alone and without caches (see ``footprint``)."""
        run = self._run_of([cell], pack=-1, listener=None)
        pack = run.pack
        part = largest_step(cell, self.objective, self.forward.storage.lengths, self.training.batch_size)
        model = self.forward.model
        frozen = [*model.parameters(), *model.buffers(), *scales_of(model)]
        own = [pack.values, pack.lane_gradients, *pack.computed]
        pack.training, run.resumed_at = True, None

        def measure(some: MicroBatch) -> int:
            with kept_for_backward([*frozen, *own]) as kept:
                run.loss_of(some)
            return kept.bytes

        with self.forward.running(pack, None):
            kept = kept_of(part, measure)
        return step_bytes([*frozen, pack.values, *pack.computed], pack.values.shape[1], kept)

    def _run_of(self, cells: Sequence[Cell], pack: int, listener: Listener | None) -> PackRun:
        return PackRun(self.forward, self.memory, self.training, self.objective, cells, pack, listener)
