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
from lora_search.errors import MachineError
from lora_search.models.base import FrozenBase
from lora_search.spec.experiment import TrainingSpec
from lora_search.spec.facts import Budgets
from lora_search.tasks import task_of
from lora_search.training.batches import IntArray
from lora_search.training.cell import Cell
from lora_search.training.inputs import TokenStorage, takes_types
from lora_search.training.lanes import possible_lanes
from lora_search.training.memory import (
    LARGE_TOKEN_BUDGET,
    LEAST_TOKEN_BUDGET,
    activation_bytes,
    cache_memory,
    first_token_budget,
    free_bytes,
    is_out_of_memory,
    release_memory,
)
from lora_search.training.pack_run import Listener, PackRun, TrainedCell
from lora_search.training.pooled import PooledLayer, PooledToken, find_pooled_token
from lora_search.training.precision import in_precision
from lora_search.training.prefix import PrefixCache
from lora_search.training.probing import ForwardFacts, probe

_ROWS_TO_COMPARE = 4
_SHARE_OF_FREE_MEMORY = 0.5
"""Activations that would take more of what is free than this are not kept: all else has to find room too."""


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
        self.settings = settings
        config = base.model.config.get_text_config()
        self.head_deviation = float(getattr(config, "initializer_range", None) or 0.02)
        self.storage = TokenStorage(data, config.pad_token_id or 0, settings.device, takes_types(base.model))
        self.objective = task_of(base.head.task).objective(data)
        self.targets = torch.from_numpy(self.objective.targets).to(settings.device)
        self.precision_note: str | None = None
        self.split_packs = False
        self.forward = self._probe()
        self.token_budget = settings.token_budget or self._first_token_budget()
        self.lanes = possible_lanes(settings.lanes, settings.device)
        chosen = training.gradient_checkpointing
        self.checkpointing = settings.checkpointing if chosen == "auto" else chosen
        self._found_room_for = 0
        self.prefix = PrefixCache(
            self.model,
            base.structure.stack_name,
            [module.leaf for module in base.structure.linear_modules],
            self.storage,
            memory_budget=cache_memory() if settings.cache_memory is None else settings.cache_memory,
            token_budget=4 * self.token_budget,
            folder=settings.cache_folder,
        )
        self.pooled = self._find_pooled_token() if settings.pooled_token else None
        self.pooled_layer = PooledLayer(self.model, self.pooled)
        self.padded_tokens = 0
        self.real_tokens = 0

    def _probe(self) -> ForwardFacts:
        """Have the model in a precision that its own code runs in, and look at its forward."""
        structure, settings = self.base.structure, self.settings
        modules = [*(module.name for module in structure.linear_modules), *structure.head_modules]
        self.model = in_precision(self.base.model, settings.dtype, settings.device)
        try:
            return probe(self.model, self.storage, modules)
        except RuntimeError as error:
            if settings.dtype == torch.float32 or is_out_of_memory(error):
                raise
            name = type(self.model).__name__
            if self.training.precision != "auto":
                raise MachineError(
                    f"training.precision: must be fp32 for {name}, whose own code fails in bf16, got bf16 ({error})"
                ) from error
        self.precision_note = f"{name} runs in fp32: its own code fails in bf16"
        self.settings = replace(settings, dtype=torch.float32)
        return self._probe()

    def _first_token_budget(self) -> int:
        per_token = self._activation_bytes(1, self.base.structure.layer_count, checkpointing=False)
        return first_token_budget(self.settings.device, per_token)

    def activation_bytes(self, cells: Sequence[Cell], *, checkpointing: bool) -> int:
        """About what training a pack of ``cells`` keeps for the backward: a micro-batch in every lane, and no more than
        a whole step."""
        structure = self.base.structure
        longest = max(int(self.storage.lengths[cell.train].max(initial=0)) for cell in cells)
        step = longest * sum(min(self.training.batch_size, len(cell.train)) for cell in cells)
        tokens = min(step, self.lanes * max(longest, self.token_budget))
        layers = structure.layer_count - min(cell.depth(structure.layer_count) for cell in cells)
        return self._activation_bytes(tokens, layers, checkpointing=checkpointing)

    def _activation_bytes(self, tokens: int, layers: int, *, checkpointing: bool) -> int:
        width = self.base.structure.hidden_size
        return activation_bytes(tokens, layers, width, self.settings.dtype, checkpointing=checkpointing)

    def provide_for(self, cells: Sequence[Cell]) -> None:
        """Checkpoint from now on if training ``cells`` would else fill the memory and the experiment leaves it open."""
        needed = self.activation_bytes(cells, checkpointing=False)
        # what was found to fit may be with an allocator since, and not look free
        if self.checkpointing or self.training.gradient_checkpointing != "auto" or needed <= self._found_room_for:
            return
        free = free_bytes(self.settings.device)
        self.checkpointing = free is not None and needed > _SHARE_OF_FREE_MEMORY * free
        self._found_room_for = needed

    def make_do(self, *, training: bool) -> bool:
        """Need less memory from now on: halve a large token budget, which hardly slows anything; then checkpoint if the
        experiment leaves it open; then halve on.

        Returns:
            False where nothing is left to save.
        """
        may_checkpoint = training and not self.checkpointing and self.training.gradient_checkpointing == "auto"
        if may_checkpoint and self.token_budget <= LARGE_TOKEN_BUDGET:
            self.checkpointing = True
            return True
        if self.token_budget <= LEAST_TOKEN_BUDGET:
            return False
        self.token_budget //= 2
        return True

    def _find_pooled_token(self) -> PooledToken | None:
        model, structure = self.base.model, self.base.structure
        examples = self.storage.spread(_ROWS_TO_COMPARE)
        batch = self.storage.batch(examples, int(self.storage.lengths[examples].max()))
        return find_pooled_token(
            model,
            f"{structure.stack_name}.{structure.layer_count - 1}",
            [module.name for module in structure.linear_modules],
            self.storage,
            batch.to(next(model.parameters()).device),
        )

    @property
    def budgets(self) -> Budgets:
        """What memory was found to allow, as the settings of that name: an engine made with them begins there."""
        return {"token_budget": self.token_budget, "checkpointing": self.checkpointing}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how results were computed, as sentences."""
        notes = [note for note in (self.precision_note, self.prefix.note) if note is not None]
        name = type(self.model).__name__
        if self.checkpointing and self.training.gradient_checkpointing == "auto":
            notes.append(f"memory is short for {name}: its layers are computed again in each backward, which is slower")
        if self.forward.sees_padding:
            notes.append(f"{name} sees padding, so only texts of equal length are computed together, which is slower")
        if self.split_packs:
            notes.append(f"{name} is trained with one adapter per micro-batch, which is slower")
        return tuple(notes)

    def train(self, cells: Sequence[Cell], pack: int, listener: Listener | None = None) -> list[TrainedCell]:
        """Train cells together and score each on its own examples.

        Args:
            cells: the pack; best if they share a fold and their lowest adapted layer.
            pack: its number, for the record.
            listener: called after every step.

        Returns:
            One result per cell, in order; of several smaller packs where memory has no room for all at once. A cell
            whose loss stopped being a number is ``failed``; the others are not affected.
        """
        run = self._built(cells, pack, listener)
        if run is None:
            release_memory(self.settings.device)
            first, second = cells[: len(cells) // 2], cells[len(cells) // 2 :]
            return [*self.train(first, pack, listener), *self.train(second, pack, listener)]
        self.provide_for(cells)  # with what the pack itself needs already taken
        return run.run()

    def _built(self, cells: Sequence[Cell], pack: int, listener: Listener | None) -> PackRun | None:
        """A pack ready to be trained; None where there is no room for all its adapters and their optimizer at once."""
        try:
            return PackRun(self, cells, pack, listener)
        except (RuntimeError, MemoryError) as error:
            if len(cells) == 1 or not is_out_of_memory(error):
                raise
            return None

    def predict(self, cell: Cell, state: dict[str, Tensor], examples: IntArray) -> np.ndarray:
        """What a trained cell predicts, float32 (examples, columns) as the task has it."""
        run = PackRun(self, [cell], pack=-1, listener=None)
        run.pack.load(0, state)
        return run.predict([examples])[0]
