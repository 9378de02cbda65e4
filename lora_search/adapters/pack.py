"""A pack: the adapters and heads of several slots over one frozen model.

Storage is one float32 matrix (slots, parameters) each for values and gradients; every parameter of every slot is a
view into it. So AdamW is a dozen vector operations whatever the number of modules, and a slot is saved, loaded or
emptied as one row. Columns are laid out in *planes*, one per rank, [plane 1 | ... | plane R | heads], and a plane as
[a row of every A | a column of every B]. A slot of rank r has all it trains in the first r planes and the heads;
``blocks`` names these parts, so that a small rank beside a large one costs what it has, and not what the large one has.

The *compute* copy holds A and scale * B in the precision of the matrix products, each module's in one piece, and those
of modules that share an input one after the other; ``refresh`` remakes it after an update.

A pack does not know data, losses or schedules, and nothing of how a model is loaded: it gets a module tree and names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from lora_search.adapters.initial import initial_a, initial_head_weight
from lora_search.adapters.lane import Lane
from lora_search.adapters.layers import Matrices
from lora_search.adapters.rows import Rows
from lora_search.adapters.sharing import shared_zeros

_BLOCK = 2**17
"""Most numbers of a block on a CPU; AdamW goes over four such blocks at once."""


@dataclass(frozen=True)
class SlotAdapter:
    """What one slot trains: LoRA of ``rank`` times ``scale`` on ``modules``, and the head.

    ``key`` seeds the initial weights. The masks of ``dropout`` are drawn from the keys of the rows (see ``Rows``).
    """

    modules: frozenset[str]
    rank: int
    scale: float
    key: int
    dropout: float = 0.0


@dataclass(frozen=True)
class _Parameter:
    """Where one parameter lies in the columns: A, B or a head tensor of ``module``.

    ``strides`` are those within a row of the storage: a plane apart along the rank, one along the features.
    """

    module: str
    kind: str
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.module}.{self.kind}"

    def of_all(self, storage: Tensor) -> Tensor:
        """The parameter of every slot, a view (slots, *shape) of ``storage`` (slots, columns)."""
        strides = storage.stride(0), *self.strides
        return storage.as_strided((len(storage), *self.shape), strides, storage.storage_offset() + self.start)

    def of(self, storage: Tensor, slot: int) -> Tensor:
        """The parameter of one slot, a view of ``shape``."""
        return self.of_all(storage)[slot]


@dataclass(frozen=True)
class Block:
    """A part of the storage: of consecutive slots, consecutive columns of one kind (``lora_A``, ``lora_B``, ``head``).

    On a CPU it is small enough to stay in the cache while several operations go over it.
    """

    slots: slice
    columns: slice
    kind: str

    def of(self, storage: Tensor) -> Tensor:
        """The block as a view of ``storage`` (slots, columns)."""
        return storage[self.slots, self.columns]


def _consecutive(slots: Sequence[int]) -> Iterator[slice]:
    """Ascending slots as slices of consecutive ones."""
    for _, members in groupby(enumerate(slots), key=lambda pair: pair[1] - pair[0]):
        run = [slot for _, slot in members]
        yield slice(run[0], run[-1] + 1)


def _features(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a frozen linear module; transformers' Conv1D stores its weight as (in, out)."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1]


class _InitialWeights:
    """Initial weights, each drawn once: the slots of a fold begin with the same, and of A with its first rows."""

    def __init__(self, head_deviation: float) -> None:
        self.head_deviation = head_deviation
        self._drawn: dict[tuple[int, str], Tensor] = {}

    def a(self, key: int, module: str, rank: int, width: int) -> Tensor:
        """(rank, width); ask for the largest rank each time."""
        if (key, module) not in self._drawn:
            self._drawn[key, module] = initial_a(key, module, rank, width)
        return self._drawn[key, module]

    def head_weight(self, key: int, name: str, shape: tuple[int, ...]) -> Tensor:
        if (key, name) not in self._drawn:
            self._drawn[key, name] = initial_head_weight(key, name, shape, self.head_deviation)
        return self._drawn[key, name]


class AdapterPack:
    """Slots over ``model``.

    Args:
        model: the frozen module tree. It is changed only while attached.
        adapters: one per slot.
        head_modules: names of the nn.Linear and nn.LayerNorm modules of which each slot trains its own.
        head_deviation: standard deviation of initial head weights.
        dtype: precision of the LoRA products; values, gradients and heads are float32.
        lanes: processes that compute with this pack, forked when it is there; more than one on a CPU only.
        same_input: names of modules that the model gives the same input, the very same tensor; computed together.
    """

    def __init__(
        self,
        model: nn.Module,
        adapters: Sequence[SlotAdapter],
        head_modules: Sequence[str],
        *,
        head_deviation: float = 0.02,
        dtype: torch.dtype = torch.float32,
        lanes: int = 1,
        same_input: Iterable[Sequence[str]] = (),
    ) -> None:
        self.model = model
        self.adapters = tuple(adapters)
        self.head_modules = tuple(head_modules)
        self.head_deviation = head_deviation
        self.dtype = dtype
        self.device = next(model.parameters()).device
        named = dict(model.named_modules())
        targeted = frozenset().union(*(adapter.modules for adapter in adapters))
        self.target_modules = tuple(name for name in named if name in targeted)
        self.max_rank = max((adapter.rank for adapter in adapters), default=0)
        features = {name: _features(named[name]) for name in self.target_modules}
        self._a_width = sum(width for width, _ in features.values())
        self._plane = self._a_width + sum(width for _, width in features.values())
        self._layout, columns = self._lay_out(named, features)
        self._place = {(parameter.module, parameter.kind): parameter for parameter in self._layout}
        zeros = shared_zeros if lanes > 1 else partial(torch.zeros, device=self.device)
        self.values = zeros(len(adapters), columns)
        self.lane_gradients = zeros(lanes, len(adapters), columns)
        together = ([name for name in names if name in targeted] for names in same_input)
        self.shared_inputs = tuple(tuple(names) for names in together if len(names) > 1)
        self._compute = zeros(len(adapters) * self.max_rank * self._plane, dtype=dtype)
        self._stacked_a: dict[tuple[str, ...], Tensor] = {}
        self._compute_a: dict[str, Tensor] = {}
        self._compute_b: dict[str, Tensor] = {}
        self._lay_out_compute(features)
        self._scale = torch.tensor([[adapter.scale] for adapter in adapters], device=self.device)
        self.take_lane(0)
        self.training = False
        drop = torch.tensor([adapter.dropout for adapter in adapters], device=self.device)
        self._dropout = drop if any(adapter.dropout > 0 for adapter in adapters) else None
        drawn = _InitialWeights(head_deviation)
        for slot in range(len(adapters)):
            self._draw(slot, drawn)
        self.refresh()

    def _lay_out(
        self, named: Mapping[str, nn.Module], features: Mapping[str, tuple[int, int]]
    ) -> tuple[tuple[_Parameter, ...], int]:
        """Every parameter's place, and the number of columns."""
        layout, start = [], 0
        for name in self.target_modules:
            width = features[name][0]
            layout.append(_Parameter(name, "lora_A", (self.max_rank, width), start, (self._plane, 1)))
            start += width
        for name in self.target_modules:
            width = features[name][1]
            layout.append(_Parameter(name, "lora_B", (width, self.max_rank), start, (1, self._plane)))
            start += width
        start *= self.max_rank
        for name in self.head_modules:
            for kind, parameter in named[name].named_parameters(recurse=False):
                layout.append(_Parameter(name, kind, tuple(parameter.shape), start, parameter.stride()))
                start += parameter.numel()
        return tuple(layout), start

    def _lay_out_compute(self, features: Mapping[str, tuple[int, int]]) -> None:
        """Views of the compute copy: the A's of modules that share an input, (slots, modules * rank, in), and of every
        module A (slots, rank, in) and B (slots, rank, out)."""
        start, slots, rank = 0, len(self.adapters), self.max_rank

        def piece(rows: int, width: int) -> Tensor:
            nonlocal start
            start += slots * rows * width
            return self._compute[start - slots * rows * width : start].view(slots, rows, width)

        grouped = {name for names in self.shared_inputs for name in names}
        for names in (*self.shared_inputs, *((name,) for name in self.target_modules if name not in grouped)):
            stacked_a = self._stacked_a[names] = piece(len(names) * rank, features[names[0]][0])
            for place, name in enumerate(names):
                self._compute_a[name] = stacked_a[:, place * rank : (place + 1) * rank]
                self._compute_b[name] = piece(rank, features[name][1])

    @property
    def dropout(self) -> Tensor | None:
        return self._dropout if self.training else None

    # -- one slot ------------------------------------------------------------------------------------------------

    def reset(self, slot: int) -> None:
        """Give a slot its initial weights, and no gradient."""
        self._draw(slot, _InitialWeights(self.head_deviation))
        self.lane_gradients[:, slot].zero_()
        self.refresh()

    def _draw(self, slot: int, drawn: _InitialWeights) -> None:
        adapter = self.adapters[slot]
        row = torch.zeros(1, self.values.shape[1])  # put together where they are drawn, then brought in one piece
        for parameter in self._layout:
            view = parameter.of(row, 0)
            if parameter.kind == "lora_A" and parameter.module in adapter.modules:
                a = drawn.a(adapter.key, parameter.module, self.max_rank, parameter.shape[1])
                view[: adapter.rank] = a[: adapter.rank]
            elif parameter.kind == "weight":
                if len(parameter.shape) == 1:  # a layer norm starts as the identity
                    view.fill_(1.0)
                else:
                    view.copy_(drawn.head_weight(adapter.key, parameter.name, parameter.shape))
        self.values[slot].copy_(row[0])

    def _own(self, slot: int) -> Iterator[tuple[str, tuple[slice, ...], _Parameter]]:
        """Name, the slot's own part (its rank, not the pack's) and place of every parameter the slot trains."""
        adapter = self.adapters[slot]
        for parameter in self._layout:
            if parameter.kind == "lora_A" and parameter.module in adapter.modules:
                yield parameter.name, (slice(adapter.rank), slice(None)), parameter
            elif parameter.kind == "lora_B" and parameter.module in adapter.modules:
                yield parameter.name, (slice(None), slice(adapter.rank)), parameter
            elif not parameter.kind.startswith("lora_"):
                yield parameter.name, (slice(None),) * len(parameter.shape), parameter

    def _read(self, storage: Tensor, slot: int) -> dict[str, Tensor]:
        return {
            name: parameter.of(storage, slot)[part].clone(memory_format=torch.contiguous_format)
            for name, part, parameter in self._own(slot)
        }

    def state(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's weights: ``MODULE.lora_A`` (rank, in), ``MODULE.lora_B`` (out, rank), head tensors by
        name."""
        return self._read(self.values, slot)

    def slot_gradients(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's gradients, of all lanes together, named and shaped as in ``state``."""
        return self._read(self.lane_gradients.sum(0), slot)

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Put weights named and shaped as in ``state`` into a slot.

        Raises:
            KeyError: a parameter of the slot is missing.
            ValueError: a shape differs.
        """
        for name, part, parameter in self._own(slot):
            view = parameter.of(self.values, slot)[part]
            if view.shape != state[name].shape:
                raise ValueError(f"{name}: the slot has shape {tuple(view.shape)}, got {tuple(state[name].shape)}")
            view.copy_(state[name])
        self.refresh()

    # -- all slots -----------------------------------------------------------------------------------------------

    def blocks(self, slots: Sequence[int]) -> Iterator[Block]:
        """The parts of the storage that together hold every parameter of ``slots`` (ascending), each once, and little
        else."""
        ends = [(plane * self._plane, plane * self._plane + self._a_width) for plane in range(self.max_rank + 1)]
        for rank in range(self.max_rank):
            members = [slot for slot in slots if self.adapters[slot].rank > rank]
            yield from self._cut(members, *ends[rank], "lora_A")
            yield from self._cut(members, ends[rank][1], ends[rank + 1][0], "lora_B")
        yield from self._cut(slots, ends[-1][0], self.values.shape[1], "head")

    def pieces(self, slot: int) -> tuple[list[Block], list[Block]]:
        """The longest runs of columns that hold what a slot trains, and else zeros: those of matrices, and those of
        biases and norms."""
        rank = self.adapters[slot].rank if self.target_modules else 0
        heads = [parameter for parameter in self._layout if not parameter.kind.startswith("lora_")]
        spans: dict[bool, list[tuple[int, int]]] = {True: [(0, rank * self._plane)] if rank else [], False: []}
        for parameter in heads:
            same = spans[len(parameter.shape) > 1]
            stop = parameter.start + math.prod(parameter.shape)
            if same and same[-1][1] == parameter.start:
                same[-1] = (same[-1][0], stop)
            else:
                same.append((parameter.start, stop))
        one = slice(slot, slot + 1)
        matrices, others = (
            [Block(one, slice(start, stop), "any") for start, stop in spans[kind]] for kind in (True, False)
        )
        return matrices, others

    def _cut(self, slots: Sequence[int], start: int, stop: int, kind: str) -> Iterator[Block]:
        for run in _consecutive(slots):
            most = stop - start if self.device.type == "cuda" else _BLOCK // (run.stop - run.start) + 1
            for column in range(start, stop, max(1, most)):
                yield Block(run, slice(column, min(stop, column + most)), kind)

    def refresh(self, slots: Sequence[int] | None = None) -> None:
        """Remake the compute copy of some slots (None: all) from the values: A as it is, B times the slot's scale."""
        for run in _consecutive(range(len(self.adapters)) if slots is None else slots):
            # what is past the largest rank of these slots is zero and stays it
            rank = max(self.adapters[slot].rank for slot in range(run.start, run.stop))
            scale = self._scale[run].unsqueeze(2)
            for name in self.target_modules:
                a, b = self._place[name, "lora_A"], self._place[name, "lora_B"]
                self._compute_a[name][run, :rank].copy_(a.of_all(self.values)[run, :rank])
                value = b.of_all(self.values)[run, :, :rank].transpose(1, 2)
                torch.mul(value, scale, out=self._compute_b[name][run, :rank])

    def stacked_a(self, names: tuple[str, ...]) -> Tensor:
        """The compute copy of the A's of modules that share an input, (slots, modules * rank, in)."""
        return self._stacked_a[names]

    def finish_gradients(self, block: Block) -> Tensor:
        """The gradients of a block, (slots, columns): those of all lanes together, and of B instead of scale * B.

        Call once, after the last backward of a step; the other lanes' are then zero again.
        """
        total = block.of(self.gradients)
        for other in self.lane_gradients[1:]:
            total.add_(block.of(other))
            block.of(other).zero_()
        return total.mul_(self._scale[block.slots]) if block.kind == "lora_B" else total

    def zero_gradients(self) -> None:
        """Forget the gradients of this process's lane."""
        self.lane.gradients.zero_()

    @property
    def nbytes(self) -> int:
        """Bytes of all slots together: values, every lane's gradients and the compute copy."""
        return self.values.nbytes + self.lane_gradients.nbytes + self._compute.nbytes

    def has(self, module: str, kind: str) -> bool:
        """Whether a module has a parameter of a kind: ``bias``, say."""
        return any(p.module == module and p.kind == kind for p in self._layout)

    def matrices(self, module: str, kind: str, gradients: Tensor) -> Matrices:
        """One parameter of every slot, its gradient in ``gradients`` (slots, columns)."""
        parameter = self._place[module, kind]
        if kind == "lora_A":
            compute = self._compute_a[module]
        elif kind == "lora_B":
            compute = self._compute_b[module].transpose(1, 2)
        else:
            compute = parameter.of_all(self.values)
        return Matrices(compute, parameter.of_all(gradients))

    # -- lanes ---------------------------------------------------------------------------------------------------

    @property
    def gradients(self) -> Tensor:
        """(slots, columns): lane 0's, and after ``finish_gradients`` those of all."""
        return self.lane_gradients[0]

    def take_lane(self, number: int) -> None:
        """This process is lane ``number`` of the pack. To be said before it is attached."""
        self.lane = Lane(self, self.model, self.lane_gradients[number])

    @property
    def rows(self) -> Rows:
        """What the next forward computes."""
        return self.lane.rows

    @rows.setter
    def rows(self, rows: Rows) -> None:
        self.lane.rows = rows

    @contextmanager
    def attached(self) -> Iterator[AdapterPack]:
        """The model runs with this pack's slots inside the block, and is as it was after it."""
        with self.lane.attached():
            yield self


def merge_into(model: nn.Module, state: Mapping[str, Tensor], scale: float) -> None:
    """Write one slot's weights into the model itself: W0 + scale * B A, and the head tensors, in place.

    Args:
        model: the module tree the state was trained on.
        state: what ``AdapterPack.state`` returned.
        scale: the slot's scale.
    """
    with torch.no_grad():
        for name, value in state.items():
            module_name, kind = name.rsplit(".", 1)
            module = model.get_submodule(module_name)
            if kind == "lora_A":
                update = scale * (state[f"{module_name}.lora_B"] @ value)
                weight: Tensor = module.weight  # type: ignore[assignment]
                weight += update if isinstance(module, nn.Linear) else update.t()
            elif kind != "lora_B":
                getattr(module, kind).copy_(value)
