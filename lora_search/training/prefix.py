"""The frozen layers below the lowest adapted one, whose activations never change, computed once per example.

A pack whose lowest adapted layer is k needs, of everything before, only the hidden states that enter layer k. They
are computed once, kept without padding in the base's precision (in memory up to a budget, past it in a memory-mapped
file), and shared by folds, trials and epochs. The model itself is run from there (see ``resuming``).

Whether that is exact for a model is found out, not assumed: the first time, logits of a few rows are compared with
the full forward; if they differ (a layer that looks further down, say), the model is run in full and a sentence says
so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_search.training.batches import MicroBatchPlanner
from lora_search.training.inputs import PaddedBatch, TokenStorage
from lora_search.training.memory import LEAST_TOKEN_BUDGET, is_out_of_memory
from lora_search.training.resuming import ResumableModel

_CHECK_ROWS = 6


class _Reached(Exception):
    """Raised by a hook when the wanted layer is reached: the rest of the forward is not needed."""


class PrefixCache:
    """Hidden states entering layers of a frozen model, and the model run from there.

    Args:
        model: the frozen classifier in the precision it trains in; changed only inside ``resumed``.
        stack_name: dotted name of its layer stack.
        storage: the dataset.
        memory_budget: bytes of states kept in memory; past it they go to a file in ``folder``.
        folder: where that file may lie; None for the system's temporary folder.
        token_budget: padded tokens per micro-batch while filling.
        twins: models over the same weights that are to be resumed too, as lanes 1, 2, ...
    """

    def __init__(
        self,
        model: nn.Module,
        stack_name: str,
        storage: TokenStorage,
        *,
        memory_budget: int,
        token_budget: int,
        folder: Path | None = None,
        twins: Sequence[nn.Module] = (),
    ) -> None:
        self.model = model
        self.resumable = [ResumableModel(each, stack_name) for each in (model, *twins)]
        self.stack = self.resumable[0].stack
        self.storage = storage
        self.memory_budget = memory_budget
        self.token_budget = token_budget
        self.folder = folder
        self.note: str | None = None
        self._kept: dict[int, Tensor] = {}
        self._in_files: set[int] = set()
        self._exact: dict[int, bool] = {}
        self._tuple_length = 0

    @property
    def bytes_in_memory(self) -> int:
        return sum(states.nbytes for depth, states in self._kept.items() if depth not in self._in_files)

    def prepare(self, depth: int) -> bool:
        """Have the states entering layer ``depth`` ready.

        Returns:
            False to run the model in full: ``depth`` is 0, the model cannot be resumed there, or there is no room.
        """
        if depth == 0:
            return False
        if depth not in self._exact:
            reason = self._try(depth)
            self._exact[depth] = reason is None
            if reason is not None:
                self._kept.pop(depth, None)
                self.note = f"{reason}; its frozen lower layers are computed in full"
        return self._exact[depth]

    @contextmanager
    def resumed(self, depth: int) -> Iterator[None]:
        """Inside the block every lane's model computes layers from ``depth`` on, from what it is fed."""
        with ExitStack() as stack:
            for resumable in self.resumable:
                stack.enter_context(resumable.resumed(depth, self._tuple_length))
            yield

    def feed(self, depth: int, batch: PaddedBatch, lane: int = 0) -> None:
        """Give the next forward of a lane its states: rows of ``batch`` as they enter layer ``depth``."""
        states = self._kept[depth]
        on_device = states.device == batch.positions.device
        found = states[batch.positions if on_device else batch.positions.cpu()]
        self.resumable[lane].feed(found.to(batch.positions.device))

    # -- inside --------------------------------------------------------------------------------------------------

    def _try(self, depth: int) -> str | None:
        """Fill and check; why it did not work, as the beginning of a sentence."""
        name = type(self.model).__name__
        while True:
            try:
                self._kept[depth] = self._fill(depth)
                if self._check(depth):
                    return None
            except OSError as error:
                return f"the states of {name} found no room on disk ({error.strerror})"
            except Exception as error:
                # what a model's own code does when it is resumed where it was not meant to be can be any error
                if is_out_of_memory(error):
                    if self.token_budget <= LEAST_TOKEN_BUDGET:
                        raise
                    self.token_budget //= 2
                    continue
            return f"{name} cannot be resumed from a middle layer with the same result"

    @torch.no_grad()
    def _fill(self, depth: int) -> Tensor:
        """The states entering ``depth``, (tokens, features), computed from the deepest ones already kept."""
        below = max((kept for kept in self._kept if kept < depth), default=0)
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        def note_tuple(module: nn.Module, args: Any, output: Any) -> None:
            self._tuple_length = len(output) if isinstance(output, tuple) else 0

        states: Tensor | None = None
        hooks = [
            self.stack[depth].register_forward_pre_hook(catch, with_kwargs=True),
            self.stack[depth - 1].register_forward_hook(note_tuple),
        ]
        try:
            with self.resumed(below) if below else _nothing():
                everyone = np.arange(len(self.storage.lengths))
                for part in MicroBatchPlanner(self.storage.lengths, self.token_budget).plan([(0, everyone)]):
                    batch = self.storage.batch(part.examples, part.width)
                    if below:
                        self.feed(below, batch)
                    try:
                        self.model(**batch.arguments)
                    except _Reached:
                        hidden = caught.pop()
                    if states is None:
                        states = self._allocate(depth, hidden)
                    mask = batch.arguments["attention_mask"].bool()
                    states[batch.positions[mask].to(states.device)] = hidden[mask].to(states.device)
        finally:
            for hook in hooks:
                hook.remove()
        assert states is not None, "a dataset has at least one example"
        return states

    def _allocate(self, depth: int, like: Tensor) -> Tensor:
        shape = (self.storage.tokens, like.shape[-1])
        size = shape[0] * shape[1] * like.element_size()
        if self.bytes_in_memory + size <= self.memory_budget:
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        self._in_files.add(depth)
        # the file has no name after the block: however the run ends, nothing stays on the disk
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="prefix-", suffix=".states") as file:
            _reserve(file.fileno(), size)
            return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=like.dtype).view(shape)

    @torch.no_grad()
    def _check(self, depth: int) -> bool:
        """Whether resuming gives the logits of the full forward, to the rounding of the precision."""
        lengths = self.storage.lengths
        rows = min(len(lengths), _CHECK_ROWS, max(2, self.token_budget // int(lengths.max())))
        examples = self.storage.spread(rows)
        batch = self.storage.batch(examples, int(lengths[examples].max()))
        with self.resumed(depth):
            self.feed(depth, batch)
            resumed = self.model(**batch.arguments).logits.float()
        full = self.model(
            **batch.arguments
        ).logits.float()  # second, so that it can leave nothing for the other to find
        tolerance = 1e-4 if next(self.model.parameters()).dtype == torch.float32 else 5e-2
        return bool((full - resumed).abs().max() <= tolerance * full.abs().max())


def _reserve(file: int, size: int) -> None:
    """Make an open file ``size`` bytes long, its blocks taken now: running out later, in a mapped file, is fatal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
