"""How much of a step is computed at once, and whether layers keep what they computed: as memory allows.

Found out as the engine goes: what does not fit is halved or computed twice, and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from lora_search.models.structure import ModelStructure
from lora_search.training.batches import IntArray
from lora_search.training.cell import Cell
from lora_search.training.memory import (
    LARGE_TOKEN_BUDGET,
    LEAST_TOKEN_BUDGET,
    activation_bytes,
    first_token_budget,
    free_bytes,
)

_SHARE_OF_FREE_MEMORY = 0.5
"""Activations that would take more of what is free than this are not kept: all else has to find room too."""


class MemoryBudget:
    """What training may take of a machine's memory.

    Args:
        structure: the model's layers and their width.
        lengths: int64 (examples,), tokens of the longest row of every example.
        batch_size: rows of a cell in a step.
        device, dtype: where and in which precision activations are kept.
        lanes: processes that keep a micro-batch each.
        token_budget: most padded tokens of a training micro-batch to begin with; None for what suits the device.
        checkpointing: to begin with, where ``chosen`` leaves it open.
        chosen: what the experiment says about gradient checkpointing.
    """

    def __init__(
        self,
        structure: ModelStructure,
        lengths: IntArray,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        lanes: int,
        *,
        token_budget: int | None,
        checkpointing: bool,
        chosen: bool | Literal["auto"],
    ) -> None:
        self.structure = structure
        self.lengths = lengths
        self.batch_size = batch_size
        self.device, self.dtype = device, dtype
        self.lanes = lanes
        self.automatic = chosen == "auto"
        self.checkpointing = checkpointing if chosen == "auto" else chosen
        self.token_budget = token_budget or self._first_token_budget()
        self._found_room_for = 0

    def alone(self) -> MemoryBudget:
        """As this one stands, for a training in one process, and without a say in this one."""
        return MemoryBudget(
            self.structure,
            self.lengths,
            self.batch_size,
            self.device,
            self.dtype,
            1,
            token_budget=self.token_budget,
            checkpointing=False,
            chosen=False,
        )

    def _first_token_budget(self) -> int:
        per_token = self._activation_bytes(1, self.structure.layer_count, checkpointing=False)
        return first_token_budget(self.device, self.dtype, per_token)

    def activation_bytes(self, cells: Sequence[Cell], *, checkpointing: bool) -> int:
        """About what training a pack of ``cells`` keeps for the backward: a micro-batch in every lane, and no more than
        a whole step."""
        longest = max(int(self.lengths[cell.train].max(initial=0)) for cell in cells)
        step = longest * sum(min(self.batch_size, len(cell.train)) for cell in cells)
        tokens = min(step, self.lanes * max(longest, self.token_budget))
        layers = self.structure.layer_count - min(cell.depth(self.structure.layer_count) for cell in cells)
        return self._activation_bytes(tokens, layers, checkpointing=checkpointing)

    def _activation_bytes(self, tokens: int, layers: int, *, checkpointing: bool) -> int:
        return activation_bytes(tokens, layers, self.structure.hidden_size, self.dtype, checkpointing=checkpointing)

    def provide_for(self, cells: Sequence[Cell]) -> None:
        """Checkpoint from now on if training ``cells`` would else fill the memory and the experiment leaves it open."""
        needed = self.activation_bytes(cells, checkpointing=False)
        # what was found to fit may be with an allocator since, and not look free
        if self.checkpointing or not self.automatic or needed <= self._found_room_for:
            return
        free = free_bytes(self.device)
        self.checkpointing = free is not None and needed > _SHARE_OF_FREE_MEMORY * free
        self._found_room_for = needed

    def reduce_use(self, *, training: bool) -> bool:
        """Need less memory from now on: halve a large token budget, which hardly slows anything; then checkpoint if the
        experiment leaves it open; then halve on.

        Returns:
            False where nothing is left to save.
        """
        may_checkpoint = training and self.automatic and not self.checkpointing
        if may_checkpoint and self.token_budget <= LARGE_TOKEN_BUDGET:
            self.checkpointing = True
            return True
        if self.token_budget <= LEAST_TOKEN_BUDGET:
            return False
        self.token_budget //= 2
        return True
