"""The frozen layers below the lowest adapted one, whose activations never change, computed once per example.

A pack whose lowest adapted layer is k needs, of everything before, only the hidden states that enter layer k. They
are computed once, kept without padding in the base's precision (in memory up to a budget, past it in a memory-mapped
file), and shared by folds, trials and epochs. The model itself is run from there (see ``resuming``).

What the frozen weights of layer k make of these states (queries, keys and values, as a rule) never changes either, so
it is kept too, as far as it finds room in memory. An adapter on such a module adds its own part to it.

Whether that is exact for a model is found out, not assumed: the first time, logits of a few rows are compared with
the full forward; if they differ (a layer that looks further down, say), the model is run in full and a sentence says
so.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_search.training.batches import MicroBatchPlanner
from lora_search.training.inputs import PaddedBatch, TokenStorage
from lora_search.training.logits import same_logits, tolerance_of, without_padding
from lora_search.training.memory import LEAST_TOKEN_BUDGET, is_out_of_memory, release_memory
from lora_search.training.resuming import ResumableModel

_CHECK_ROWS = 6


class _LayerReached(Exception):
    """Raised by a hook when the wanted layer is reached: the rest of the forward is not needed."""


class PrefixCache:
    """Hidden states entering layers of a frozen model, and the model run from there.

    Args:
        model: the frozen classifier in the precision it trains in; changed only inside ``resumed``.
        stack_name: dotted name of its layer stack.
        linear_names: dotted names, inside a layer, of its linear modules.
        storage: the dataset.
        memory_budget: bytes of states kept in memory; past it they go to a file in ``folder``.
        folder: where that file may lie; None for the system's temporary folder.
        token_budget: padded tokens per micro-batch while filling.
        overhead: the fixed cost of a micro-batch, in tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        stack_name: str,
        linear_names: Sequence[str],
        storage: TokenStorage,
        *,
        memory_budget: int,
        token_budget: int,
        overhead: int = 48,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.resumable = ResumableModel(model, stack_name)
        self.stack = self.resumable.stack
        self.stack_name = stack_name
        self.linear_names = tuple(dict.fromkeys(linear_names))
        self.storage = storage
        self.memory_budget = memory_budget
        self.token_budget = token_budget
        self.overhead = overhead
        self.folder = folder
        self.note: str | None = None
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._in_files: set[int] = set()
        self._exact: dict[int, bool] = {}
        self._tuple_length = 0

    @property
    def bytes_in_memory(self) -> int:
        return sum(
            kept.nbytes
            for depth, parts in self._kept.items()
            for name, kept in parts.items()
            if name or depth not in self._in_files
        )

    def prepare(self, depth: int) -> bool:
        """Have the states entering layer ``depth`` ready, and what its first modules make of them.

        Returns:
            False to run the model in full: it cannot be resumed there, or there is no room.
        """
        if depth not in self._exact:
            reason = self._try(depth)
            self._exact[depth] = reason is None
            if reason is not None:
                self._kept.pop(depth, None)
                if depth:
                    self.note = f"{reason}; its frozen lower layers are computed in full"
        return self._exact[depth]

    def forget(self) -> bool:
        """Give back what is kept in memory; it is computed again when it is asked for. False where nothing was."""
        held = self.bytes_in_memory > 0
        for kept in (self._kept, self._in_files, self._exact):
            kept.clear()
        return held

    def kept_modules(self, depth: int) -> frozenset[str]:
        """Dotted names of the modules whose results are kept: in layer ``depth``, given nothing but its states."""
        return frozenset(f"{self.stack_name}.{depth}.{name}" for name in self._kept.get(depth, ()) if name)

    @contextmanager
    def resumed(self, depth: int, computed: Collection[str] = ()) -> Iterator[None]:
        """Inside the block the model computes layers from ``depth`` on, from what it is fed.

        To be entered before adapters are attached: they stand around the model's own modules, which it changes.

        Args:
            computed: dotted names of modules that are computed although their results are known.
        """
        layer = f"{self.stack_name}.{depth}"
        known = [name for name in self._kept[depth] if name and f"{layer}.{name}" not in computed]
        with self.resumable.resumed(depth, self._tuple_length, known):
            yield

    def feed(self, depth: int, batch: PaddedBatch) -> None:
        """Give the next forward what it resumes from: for the rows of ``batch``, at layer ``depth``."""
        self.resumable.feed(partial(self._read, depth, batch.positions))

    def _read(self, depth: int, positions: Tensor, name: str) -> Tensor:
        kept = self._kept[depth][name]
        on_device = kept.device == positions.device
        return kept[positions if on_device else positions.cpu()].to(positions.device)

    # -- inside --------------------------------------------------------------------------------------------------

    def _try(self, depth: int) -> str | None:
        """Fill and check; why it did not work, as the beginning of a sentence."""
        name = type(self.model).__name__
        different = f"{name} cannot be resumed from a middle layer with the same result"
        while True:
            try:
                self._fill(depth)
                return None if self._check(depth) else different
            except OSError as error:
                return f"the states of {name} found no room on disk ({error.strerror})"
            except Exception as error:
                # what a model's own code does when it is resumed where it was not meant to be can be any error
                if not is_out_of_memory(error):
                    return different
                if self.token_budget <= LEAST_TOKEN_BUDGET:
                    return f"the states of {name} found no room in memory"
            self.token_budget //= 2
            release_memory(self.storage.device)

    @torch.no_grad()
    def _fill(self, depth: int) -> None:
        """Compute the states entering ``depth``, (tokens, features), from the deepest ones already kept, and what its
        first modules make of them."""
        below = max((kept for kept in self._kept if kept < depth), default=None)
        wanted = ["", *self._first_modules(depth)]
        parts = self._kept[depth] = {}
        self._in_files.discard(depth)
        with self._captured(depth, wanted) as captured, self.resumed(below) if below is not None else nullcontext():
            everyone = np.arange(len(self.storage.lengths))
            for part in MicroBatchPlanner(self.storage.lengths, self.token_budget, self.overhead).plan([(0, everyone)]):
                batch = self.storage.batch(part.examples, part.width)
                if below is not None:
                    self.feed(below, batch)
                with suppress(_LayerReached):
                    self.model(**batch.arguments)
                mask = batch.arguments["attention_mask"].bool()
                for name in list(wanted):
                    if name not in parts and not self._allocate(depth, name, captured[name]):
                        wanted.remove(name)
                    else:
                        parts[name][batch.positions[mask].to(parts[name].device)] = captured[name][mask].to(
                            parts[name].device
                        )

    def _first_modules(self, depth: int) -> list[str]:
        """Names, inside layer ``depth``, of the linear modules that nothing of what the other ones give goes into: no
        adapter of this layer, or of a higher one, changes what they are given."""
        examples = self.storage.spread(_CHECK_ROWS)
        batch = self.storage.batch(examples, int(self.storage.lengths[examples].max()))
        given: dict[str, list[bool]] = {}

        def look(name: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
                frozen = args[0].shape[:-1] == batch.positions.shape and not args[0].requires_grad
                given.setdefault(name, []).append(frozen)
                return output.detach().requires_grad_().clone()  # which the model may write to, as Falcon does

            return hook

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            raise _LayerReached

        layer = self.stack[depth]
        hooks = [layer.get_submodule(name).register_forward_hook(look(name)) for name in self.linear_names]
        hooks.append(layer.register_forward_hook(stop))
        try:
            with torch.enable_grad(), suppress(_LayerReached):
                self.model(**batch.arguments)
        finally:
            for hook in hooks:
                hook.remove()
        # one that is called twice also gives something else
        return [name for name, calls in given.items() if calls == [True]]

    @contextmanager
    def _captured(self, depth: int, wanted: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """Inside the block a forward ends as soon as all that is wanted is in the mapping."""
        captured: dict[str, Tensor] = {}
        missing: set[str] = set()

        def arrived(name: str, value: Tensor) -> None:
            captured[name] = value
            missing.discard(name)
            if not missing:
                raise _LayerReached

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            missing.update(wanted)
            arrived("", args[0] if args else kwargs["hidden_states"])

        def leave(name: str) -> Any:
            return lambda module, args, output: arrived(name, output) if name in missing else None

        def note_tuple(module: nn.Module, args: Any, output: Any) -> None:
            self._tuple_length = len(output) if isinstance(output, tuple) else 0

        layer = self.stack[depth]
        hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True)]
        hooks.extend(layer.get_submodule(name).register_forward_hook(leave(name)) for name in wanted if name)
        if depth:
            hooks.append(self.stack[depth - 1].register_forward_hook(note_tuple))
        try:
            yield captured
        finally:
            for hook in hooks:
                hook.remove()

    def _allocate(self, depth: int, name: str, like: Tensor) -> bool:
        """Make room for a part. False where there is none: what modules give is kept in memory or not at all.

        Raises:
            OSError: no room for the states themselves.
        """
        shape = (self.storage.tokens, like.shape[-1])
        size = shape[0] * shape[1] * like.element_size()
        if self.bytes_in_memory + size <= self.memory_budget:
            # a part of a module is sooner computed on a device than brought to it
            room = _room(shape, like, devices=(like.device,) if name else (like.device, torch.device("cpu")))
            if room is not None:
                self._kept[depth][name] = room
                return True
        if name:
            return False
        if depth == 0:  # embeddings are quicker looked up than read from a disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._in_files.add(depth)
        # the file has no name after the block: however the run ends, nothing stays on the disk
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="prefix-", suffix=".states") as file:
            _reserve(file.fileno(), size)
            mapped = torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=like.dtype)
        self._kept[depth][name] = mapped.view(shape)
        return True

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
        # second, so that it can leave nothing for the other to find
        full = self.model(**batch.arguments).logits.float()
        mask = batch.arguments["attention_mask"]
        resumed, full = without_padding(resumed, mask), without_padding(full, mask)
        return same_logits(resumed, full, tolerance_of(next(self.model.parameters()).dtype))


def _room(shape: tuple[int, ...], like: Tensor, devices: Sequence[torch.device]) -> Tensor | None:
    """Memory of the first of the devices that has so much; None where none has."""
    for device in dict.fromkeys(devices):
        try:
            return torch.empty(shape, dtype=like.dtype, device=device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    return None


def _reserve(file: int, size: int) -> None:
    """Make an open file ``size`` bytes long, its blocks taken now: running out later, in a mapped file, is fatal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
