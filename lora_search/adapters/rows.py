"""Which slot each row of a micro-batch belongs to.

A micro-batch holds rows (examples) of several slots, sorted by slot. Consecutive slots with equally many rows form a
*run*: its rows, seen as (slots, rows per slot * tokens, features), meet the slots' stacked matrices in one batched
product. A micro-batch whose slots share a fold is a single run; the worst case is one run per slot. Nothing here
knows LoRA or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from lora_search.errors import LoraSearchError


class MixedRowsError(LoraSearchError):
    """A module was called on something that is not one entry per row while the micro-batch mixes slots.

    DeBERTa does so with its relative position embeddings. Such a model is trained with one slot per micro-batch.
    """


@dataclass(frozen=True)
class Run:
    """``slots`` consecutive slots from ``first_slot``, each with ``rows`` rows, from row ``first_row`` on."""

    first_slot: int
    slots: int
    first_row: int
    rows: int

    @property
    def stop_row(self) -> int:
        return self.first_row + self.slots * self.rows

    def slot_slice(self) -> slice:
        return slice(self.first_slot, self.first_slot + self.slots)

    def row_slice(self) -> slice:
        return slice(self.first_row, self.stop_row)


def stacked(x: torch.Tensor, run: Run) -> torch.Tensor:
    """Rows of a run as (slots, rows per slot * tokens, features)."""
    return x[run.row_slice()].reshape(run.slots, -1, x.shape[-1])


def unstacked(x: torch.Tensor, run: Run) -> torch.Tensor:
    """The same as a view, so that it can be written to; ``x`` is contiguous."""
    return x[run.row_slice()].view(run.slots, -1, x.shape[-1])


class Rows:
    """The rows of one micro-batch.

    Args:
        slots: slot of each row, ascending.
        keys: int64 (rows,), what LoRA dropout draws each row's mask from; None where no slot uses dropout.
        width: tokens of every row, padding included; None if unknown, then what is (rows * tokens, features) is taken
            for it whenever the number of rows divides it.
        shared_key: what the mask of an input is drawn from that is not one entry per row, and so may not depend on
            which rows are here.
        pooled: int64 (rows,), which token of its row a module is called on that sees one of several; None for the
            first.
    """

    def __init__(
        self,
        slots: Sequence[int],
        keys: torch.Tensor | None = None,
        *,
        width: int | None = None,
        shared_key: int = 0,
        pooled: torch.Tensor | None = None,
    ) -> None:
        self.slots = tuple(slots)
        self.keys = keys
        self.width = width
        self.shared_key = shared_key
        self.pooled = pooled
        self._runs_of: dict[frozenset[int], tuple[Run, ...]] = {}

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """The slots that have rows here, ascending."""
        return tuple(sorted(set(self.slots)))

    def runs(self, members: frozenset[int]) -> tuple[Run, ...]:
        """The runs that cover the rows of the slots in ``members``, and only these."""
        if members not in self._runs_of:
            self._runs_of[members] = tuple(self._find_runs(members))
        return self._runs_of[members]

    def _find_runs(self, members: frozenset[int]) -> list[Run]:
        counts = dict.fromkeys(self.present, 0)
        for slot in self.slots:
            counts[slot] += 1
        runs: list[Run] = []
        row = 0
        for slot in self.present:
            rows = counts[slot]
            if slot in members:
                last = runs[-1] if runs else None
                if (
                    last is not None
                    and last.rows == rows
                    and last.stop_row == row
                    and last.first_slot + last.slots == slot
                ):
                    runs[-1] = Run(last.first_slot, last.slots + 1, last.first_row, rows)
                else:
                    runs.append(Run(slot, 1, row, rows))
            row += rows
        return runs

    def flattens(self, x: torch.Tensor) -> bool:
        """Whether ``x`` holds the rows' tokens one after the other, (rows * tokens, features)."""
        if x.dim() != 2 or x.shape[0] == len(self):
            return False
        return x.shape[0] % len(self) == 0 if self.width is None else x.shape[0] == len(self) * self.width

    def holds_one_entry_per_row(self, x: torch.Tensor) -> bool:
        """Whether ``x`` is (rows, ..., features); a single row is told from a shared input by its width, which is 1
        where only the pooled token is computed."""
        lone = len(self) == 1 and x.dim() == 3 and self.width is not None
        return x.shape[0] == len(self) and not (lone and x.shape[1] not in (self.width, 1))

    def runs_for(self, x: torch.Tensor, members: frozenset[int]) -> tuple[Run, ...]:
        """The runs of ``members`` over the first dimension of ``x`` (rows, ..., features).

        ``x`` may also be (rows * tokens, features); or, while only one slot is present, of any leading shape.

        Raises:
            MixedRowsError: ``x`` does not have one entry per row.
        """
        count = len(self)
        if x.shape[0] == count:
            return self.runs(members)
        if len(self.present) == 1:
            slot = self.present[0]
            return (Run(slot, 1, 0, x.shape[0]),) if slot in members else ()
        if self.flattens(x):
            tokens = x.shape[0] // count
            return tuple(Run(r.first_slot, r.slots, r.first_row * tokens, r.rows * tokens) for r in self.runs(members))
        raise MixedRowsError(
            f"input of shape {tuple(x.shape)} does not hold one entry per row; the micro-batch has {count}"
        )
