"""Which examples a step sees, and how its rows are cut into micro-batches.

The order of examples depends on (seed, repeat, fold, epoch) and never on the trial. A step's rows - the batches of
all slots - are sorted by length and cut so that little padding is computed and no micro-batch exceeds the token
budget. The cut changes the order of additions, nothing else: gradients accumulate over a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from lora_search.adapters import key_of

IntArray = NDArray[np.int64]

_Sorted = list[tuple[int, IntArray]]
"""(slot, its examples by length) of several slots."""

_slot = itemgetter(0)

_SLACKS = (1.0, 1.05, 1.1, 1.2)
"""How much larger than an equal share of a step a lane's micro-batches may be: rows are not cut."""
_LAYER_OVERHEAD = 40
"""What calling a layer costs, forward and back, in tokens computed by it; measured on two cores with MiniLM."""
_BF16_LAYER_OVERHEAD = 150
"""The same in bf16: measured on two cores with AMX, where a token costs so much less."""
_GPU_LAYER_OVERHEAD = 1e12
"""The same on a GPU, in floating-point operations of its products: measured on an H100 with BERT-base, where 3 ms pass
before a layer's kernels are all launched, forward and back, and 3e14 operations are done in a second."""
_FEW_PER_LANE = 4
"""Past so many micro-batches per lane, dealing alone balances them."""


def batch_order(train: IntArray, batch_size: int, epochs: int, key: int) -> Iterator[IntArray]:
    """The batches of one cell: every epoch a new shuffle, the last batch of an epoch may be smaller."""
    for epoch in range(epochs):
        order = Generator(Philox(key=key_of(key, "epoch", epoch))).permutation(train)
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]


def step_count(examples: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of one cell."""
    return -(-examples // batch_size) * epochs


def layer_overhead(device: torch.device, dtype: torch.dtype, parameters: int) -> int:
    """What calling a layer costs, forward and back, in tokens computed by it.

    Args:
        device, dtype: where it is computed, and in which precision.
        parameters: of the layer. A token costs a GPU four operations with each.
    """
    if device.type == "cuda":
        return round(_GPU_LAYER_OVERHEAD / (4 * max(1, parameters)))
    return _BF16_LAYER_OVERHEAD if dtype == torch.bfloat16 else _LAYER_OVERHEAD


def micro_batch_overhead(layers: int, pooled: bool, layer: int = _LAYER_OVERHEAD) -> int:
    """The fixed cost of a micro-batch, in tokens: what comes before and after the layers costs about as much as calling
    one of them, and of a last layer computed for one token of each row a token costs a fifth.

    Args:
        layers: how many are computed.
        pooled: whether the last one is computed for one token of each row.
        layer: what calling one costs, in tokens computed by it.
    """
    return round(layer * (layers + 0.8) / (layers - 0.8 if pooled else layers))


@dataclass(frozen=True)
class MicroBatch:
    """Rows computed together, sorted by slot: ``slots[i]`` sees ``examples[i]``, padded to ``width`` tokens."""

    slots: tuple[int, ...]
    examples: IntArray
    width: int

    @property
    def padded_tokens(self) -> int:
        return len(self.slots) * self.width


class MicroBatchPlanner:
    """Cuts the rows of several slots into micro-batches.

    Each slot's rows are sorted by length and cut at the same positions, so that in every micro-batch each slot has
    equally many rows (see ``adapters.rows``); where slots share a fold their lengths agree and this pads no more than
    a global sort. Slots of several folds are cut apart where that costs less. The cuts minimise padded tokens plus
    ``overhead`` tokens per micro-batch by dynamic programming.

    Args:
        lengths: int64 (examples,), tokens of every example.
        token_budget: most padded tokens in a micro-batch (a single longer row is let through).
        overhead: the fixed cost of a micro-batch, in tokens.
        pads: whether rows of different lengths may be computed together.
    """

    def __init__(self, lengths: IntArray, token_budget: int, overhead: int = 48, pads: bool = True) -> None:
        self.lengths = lengths
        self.token_budget = token_budget
        self.overhead = overhead
        self.pads = pads

    def plan(self, batches: Sequence[tuple[int, IntArray]]) -> list[MicroBatch]:
        """Micro-batches that hold every (slot, example) exactly once, shortest rows first.

        Args:
            batches: (slot, examples) by ascending slot.
        """
        return self._cutter(batches)(self.token_budget)

    def _cutter(self, batches: Sequence[tuple[int, IntArray]]) -> Callable[[int], list[MicroBatch]]:
        """What cuts these batches for a token budget."""
        return partial(self._planned, self._grouped(batches)) if self.pads else partial(self._plan_unpadded, batches)

    def _grouped(self, batches: Sequence[tuple[int, IntArray]]) -> list[list[_Sorted]]:
        """Slots of equally many rows, and among them those whose rows have the same lengths, as in one fold they do."""
        by_size: dict[int, dict[bytes, _Sorted]] = {}
        for slot, examples in batches:
            if len(examples):
                order = np.lexsort((examples, self.lengths[examples]))
                alike = by_size.setdefault(len(examples), {}).setdefault(self.lengths[examples[order]].tobytes(), [])
                alike.append((slot, examples[order]))
        return [list(groups.values()) for groups in by_size.values()]

    def _planned(self, sizes: list[list[_Sorted]], budget: int) -> list[MicroBatch]:
        planned: list[MicroBatch] = []
        for groups in sizes:
            apart = [part for group in groups for part in self._plan_group(group, budget)]
            if len(groups) > 1:
                everyone = sorted((member for group in groups for member in group), key=_slot)
                apart = min(self._plan_group(everyone, budget), apart, key=self._cost)
            planned.extend(apart)
        return planned

    def _plan_group(self, group: _Sorted, budget: int) -> list[MicroBatch]:
        """Micro-batches of slots with equally many rows, by length; as few slots in each as the budget calls for."""
        longest = max(int(self.lengths[examples[-1]]) for _, examples in group)
        shares = -(-len(group) // max(1, budget // longest))
        parts = np.array_split(np.arange(len(group)), shares)
        return [part for share in parts for part in self._plan_equal([group[i] for i in share], budget)]

    def plan_lanes(self, batches: Sequence[tuple[int, IntArray]], lanes: int) -> list[list[MicroBatch]]:
        """``plan``, dealt to lanes that compute at the same time, and cut so that the busiest is done early.

        Returns:
            The micro-batches of each lane.
        """
        cut = self._cutter(batches)
        whole = cut(self.token_budget)
        dealt = [self.deal(whole, lanes)]
        if lanes > 1 and 0 < len(whole) <= _FEW_PER_LANE * lanes:
            tokens = sum(part.padded_tokens for part in whole)
            parts = lanes * -(-len(whole) // lanes)
            for slack in _SLACKS:
                budget = min(self.token_budget, int(slack * tokens / parts))
                dealt.append(self.deal(cut(budget), lanes))
        return min(dealt, key=lambda shares: max(map(self._cost, shares)))

    def deal(self, parts: list[MicroBatch], lanes: int) -> list[list[MicroBatch]]:
        """The largest first, each to the lane with the least to do."""
        shares: list[list[MicroBatch]] = [[] for _ in range(lanes)]
        costs = [0] * lanes
        for part in sorted(parts, key=lambda part: -part.padded_tokens):
            lane = costs.index(min(costs))
            shares[lane].append(part)
            costs[lane] += self._cost([part])
        return shares

    def _cost(self, parts: Iterable[MicroBatch]) -> int:
        return sum(part.padded_tokens + self.overhead for part in parts)

    def _plan_unpadded(self, batches: Sequence[tuple[int, IntArray]], budget: int) -> list[MicroBatch]:
        rows = sorted((int(self.lengths[example]), slot, int(example)) for slot, part in batches for example in part)
        planned = []
        for width, alike in groupby(rows, key=itemgetter(0)):
            _, slots, examples = zip(*alike, strict=True)
            most = max(1, budget // width)
            for start in range(0, len(slots), most):
                part = np.array(examples[start : start + most], dtype=np.int64)
                planned.append(MicroBatch(slots[start : start + most], part, width))
        return planned

    def _plan_equal(self, group: _Sorted, budget: int) -> list[MicroBatch]:
        stacked = np.stack([examples for _, examples in group])
        widths = np.maximum.accumulate(self.lengths[stacked].max(axis=0))
        planned = []
        for start, stop in self._cuts(widths.tolist(), len(group), budget):
            slots = tuple(slot for slot, _ in group for _ in range(stop - start))
            planned.append(MicroBatch(slots, stacked[:, start:stop].reshape(-1), int(widths[stop - 1])))
        return planned

    def _cuts(self, widths: list[int], slots: int, budget: int) -> list[tuple[int, int]]:
        """Positions [start, stop) of the micro-batches of ``slots`` rows per position, ``widths`` ascending."""
        best, previous = [0], [0]
        for stop, width in enumerate(widths, 1):
            tokens = width * slots
            starts = range(max(0, stop - max(1, budget // tokens)), stop)
            costs = [best[start] + (stop - start) * tokens for start in starts]
            cheapest = min(costs)
            best.append(cheapest + self.overhead)
            previous.append(starts[costs.index(cheapest)])
        cuts, stop = [], len(widths)
        while stop > 0:
            cuts.append((previous[stop], stop))
            stop = previous[stop]
        return cuts[::-1]
