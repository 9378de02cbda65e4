"""What one optimizer step holds in memory, counted tensor by tensor.

One measure for adapters and for everything they are compared with, on any device: the weights, of what is trained a
gradient and AdamW's two moments, and what the backward pass needs of the forward's results, of the largest batch of
the first epoch computed at once. It is no peak of a process: the framework, caches of frozen layers and buffers of
single operations are not in it, and micro-batches or checkpointing need less. So it depends on no machine, and it is
what grows with the model and with what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lora_search.tasks import Objective
from lora_search.training.batches import IntArray, MicroBatch, batch_order
from lora_search.training.cell import Cell

_MOST_TOKENS = 4096
"""Padded tokens that are computed at once to find out what they keep."""
_COPIES_OF_TRAINED = 3
"""Beside its value: gradient, first and second moment."""


@dataclass
class Kept:
    """Storages that the backward pass will read, by address: bytes of each."""

    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


@contextmanager
def kept_for_backward(weights: Iterable[Tensor]) -> Iterator[Kept]:
    """Inside the block what a forward saves for its backward is counted, each storage once, and ``weights`` never."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    kept = Kept()

    def look(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that keeps its own result would hold itself by it, and never be freed

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        yield kept


def step_bytes(weights: Iterable[Tensor], trained: int, kept: int) -> int:
    """Bytes of a step.

    Args:
        weights: of the model, and of what is trained beside it.
        trained: how many numbers are.
        kept: bytes of its forward that its backward needs.
    """
    storages = {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in weights}
    of_trained = _COPIES_OF_TRAINED * trained * torch.float32.itemsize
    return sum(storages.values()) + of_trained + kept


def kept_of(part: MicroBatch, measure: Callable[[MicroBatch], int]) -> int:
    """What the backward pass needs of a batch; of one too large to be computed at once by the rule of three, since rows
    of one width all need as much.

    Args:
        part: the batch.
        measure: bytes of a part of it.
    """
    rows, few = len(part.examples), max(2, _MOST_TOKENS // part.width)
    if rows <= few:
        return measure(part)
    less, more = (measure(MicroBatch(part.slots[:some], part.examples[:some], part.width)) for some in (few // 2, few))
    return more + round((more - less) / (few - few // 2) * (rows - few))


def largest_step(cell: Cell, objective: Objective, lengths: IntArray, batch_size: int) -> MicroBatch:
    """The batch of the first epoch with the most padded tokens, as one micro-batch.

    Args:
        cell: the training. objective: its rows.
        lengths: int64 (rows,), tokens of each.
        batch_size: examples of a step.
    """

    def size(rows: IntArray) -> int:
        return len(rows) * int(lengths[rows].max())

    batches = batch_order(cell.train, batch_size, 1, cell.order_key)
    rows = np.sort(max((objective.rows(batch) for batch in batches), key=size))
    return MicroBatch((0,) * len(rows), rows, int(lengths[rows].max()))
