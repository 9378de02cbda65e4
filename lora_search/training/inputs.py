"""Encoded examples on the device, and padded batches of any rows of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lora_search.adapters import on_device
from lora_search.data import EncodedExamples


@dataclass(frozen=True)
class PaddedBatch:
    """Rows right-padded to one width.

    Attributes:
        arguments: what the model's forward takes: input_ids and attention_mask (rows, width), and token_type_ids if
            any.
        positions: int64 (rows, width), where each token lies in the flat storage (0 for padding).
    """

    arguments: dict[str, Tensor]
    positions: Tensor

    def to(self, device: torch.device) -> PaddedBatch:
        """The same batch on another device."""
        moved = {name: argument.to(device) for name, argument in self.arguments.items()}
        return PaddedBatch(moved, self.positions.to(device))


def takes_types(model: nn.Module) -> bool:
    """Whether the model names token types among its arguments; other models are not given them (as in ``Trainer``)."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


class TokenStorage:
    """All tokens of a dataset in one row, so that a padded batch is one gather on the device.

    Args:
        examples: the encoded dataset.
        padding: token id to pad with.
        device: where batches are wanted.
        types: whether the model wants token types, where the tokenizer makes them.
    """

    def __init__(self, examples: EncodedExamples, padding: int, device: torch.device, types: bool = True) -> None:
        self.device = device
        self.padding = padding
        self.lengths = examples.lengths
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(examples.lengths)[:-1]]).astype(np.int64)).to(
            device
        )
        self._lengths = torch.from_numpy(examples.lengths.astype(np.int64)).to(device)
        self._ids = torch.from_numpy(np.concatenate(examples.input_ids)).to(device)
        token_types = examples.token_type_ids if types else None
        self._types = None if token_types is None else torch.from_numpy(np.concatenate(token_types)).to(device)

    @property
    def tokens(self) -> int:
        """Tokens in the whole dataset."""
        return int(self._ids.shape[0])

    def any_ends_with(self, token: int) -> bool:
        """Whether an example's last token is ``token``."""
        return bool((self._ids[self._starts + self._lengths - 1] == token).any())

    def spread(self, most: int) -> NDArray[np.int64]:
        """At most ``most`` examples, from the shortest to the longest."""
        count = min(len(self.lengths), most)
        order: NDArray[np.int64] = np.argsort(self.lengths, kind="stable")
        return order[np.linspace(0, len(order) - 1, count).astype(np.int64)]

    def batch(self, examples: NDArray[np.int64], width: int) -> PaddedBatch:
        """The rows of ``examples``, padded to ``width`` tokens."""
        rows = on_device(examples, self.device)
        offsets = torch.arange(width, device=self.device)
        mask = offsets < self._lengths[rows].unsqueeze(1)
        positions = (self._starts[rows].unsqueeze(1) + offsets) * mask
        arguments = {
            "input_ids": torch.where(mask, self._ids[positions], self.padding),
            "attention_mask": mask.long(),
        }
        if self._types is not None:
            arguments["token_type_ids"] = self._types[positions] * mask
        return PaddedBatch(arguments, positions)
