"""A pack: the adapters and heads of several slots over one frozen model.

Storage is one float32 matrix (slots, parameters) each for values and gradients; every parameter of every slot is a
view into it. So AdamW is a dozen vector operations whatever the number of modules, and a slot is saved, loaded or
emptied as one row. Columns are laid out in *planes*, one per rank, [plane 1 | ... | plane R | rest], and a plane as
[a row of every A | a column of every B]. The rest are magnitudes and biases of adapted modules, where a slot trains
them, and the heads. A slot of rank r has all it trains in the first r planes and the rest; ``blocks`` names these
parts, so that a small rank beside a large one costs what it has, and not what the large one has. Where its ranks differ
by module, what smaller ones leave of its planes is zero, and stays so.

The *compute* copy holds A and scale * B in the precision of the matrix products; ``refresh`` remakes it after an
update.

A pack does not know data, losses or schedules, and nothing of how a model is loaded: it gets a module tree and names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from lora_search.adapters.initial import initial_a, initial_head_weight
from lora_search.adapters.lane import Lane
from lora_search.adapters.layers import Matrices
from lora_search.adapters.rows import Rows
from lora_search.adapters.sharing import shared_zeros
from lora_search.adapters.variants import BIAS, MAGNITUDE, Biases, Magnitude, Magnitudes

_BLOCK = 2**17
"""Most numbers of a block on a CPU; AdamW goes over four such blocks at once."""


@dataclass(frozen=True)
class SlotAdapter:
    """What one slot trains: LoRA of ``rank`` times ``scale`` on ``modules``, and the head.

    ``key`` seeds the initial weights. The masks of ``dropout`` are drawn from the keys of the rows (see ``Rows``). With
    ``use_dora`` it has magnitudes too, with ``trains_bias`` the biases of ``modules`` (see ``variants``). ``ranks`` are
    those of modules that have another, by name.
    """

    modules: frozenset[str]
    rank: int
    scale: float
    key: int
    dropout: float = 0.0
    use_dora: bool = False
    trains_bias: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        """The rank on a module that it adapts."""
        return self.ranks.get(module, self.rank)

    @property
    def largest_rank(self) -> int:
        """On any of them."""
        return max(map(self.rank_of, self.modules), default=self.rank)


@dataclass(frozen=True)
class _Parameter:
    """Where one parameter lies in the columns: A, B, a magnitude, a bias or a head tensor of ``module``.

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


def _is_dora(adapter: SlotAdapter, module: str) -> bool:
    return adapter.use_dora and module in adapter.modules


def _trains_bias(adapter: SlotAdapter, module: str) -> bool:
    return adapter.trains_bias and module in adapter.modules


def _bias_of(module: nn.Module) -> Tensor:
    bias: Tensor = module.bias  # type: ignore[assignment]
    return bias.detach().float()


class AdapterPack:
    """Slots over ``model``.

    Args:
        model: the frozen module tree. It is changed only while attached.
        adapters: one per slot.
        head_modules: names of the nn.Linear and nn.LayerNorm modules of which each slot trains its own.
        head_deviation: standard deviation of initial head weights.
        dtype: precision of the LoRA products; values, gradients and heads are float32.
        lanes: processes that compute with this pack, forked when it is there; more than one on a CPU only.
        tokens_first: names of the modules that the model calls on (tokens, rows, features).
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
        tokens_first: Collection[str] = (),
    ) -> None:
        self.model = model
        self.adapters = tuple(adapters)
        self.head_modules = tuple(head_modules)
        self.head_deviation = head_deviation
        self.dtype = dtype
        self.tokens_first = frozenset(tokens_first)
        self.device = next(model.parameters()).device
        named = dict(model.named_modules())
        targeted = frozenset().union(*(adapter.modules for adapter in adapters))
        self.target_modules = tuple(name for name in named if name in targeted)
        self.max_rank = max((adapter.largest_rank for adapter in adapters), default=0)
        features = {name: _features(named[name]) for name in self.target_modules}
        self._a_width = sum(width for width, _ in features.values())
        self._plane = self._a_width + sum(width for _, width in features.values())
        self._layout, columns = self._lay_out(named, features)
        zeros = shared_zeros if lanes > 1 else partial(torch.zeros, device=self.device)
        dora = {name: [s for s, adapter in enumerate(adapters) if _is_dora(adapter, name)] for name in features}
        self._magnitudes = Magnitudes(named, {name: own for name, own in dora.items() if own}, len(adapters), zeros)
        self._biases = {p.module: _bias_of(named[p.module]) for p in self._layout if p.kind == BIAS}
        self.values = zeros(len(adapters), columns)
        self.lane_gradients = zeros(lanes, len(adapters), columns)
        self._compute = zeros(len(adapters), self.max_rank * self._plane, dtype=dtype)
        self._scale = torch.tensor([[adapter.scale] for adapter in adapters], device=self.device)
        self.take_lane(0)
        self.training = False
        drop = torch.tensor([adapter.dropout for adapter in adapters], device=self.device)
        self._dropout = drop if any(adapter.dropout > 0 for adapter in adapters) else None
        self._draw(range(len(adapters)))
        self.refresh()

    def _lay_out(
        self, named: Mapping[str, nn.Module], features: Mapping[str, tuple[int, int]]
    ) -> tuple[tuple[_Parameter, ...], int]:
        """Every parameter's place, and the number of columns."""
        layout, start = [], 0
        ranks = {name: self._computed_rank(name) for name in self.target_modules}
        for name in self.target_modules:
            width = features[name][0]
            layout.append(_Parameter(name, "lora_A", (ranks[name], width), start, (self._plane, 1)))
            start += width
        for name in self.target_modules:
            width = features[name][1]
            layout.append(_Parameter(name, "lora_B", (width, ranks[name]), start, (1, self._plane)))
            start += width
        start *= self.max_rank
        for name, kind in self._beside(named):
            layout.append(_Parameter(name, kind, (features[name][1],), start, (1,)))
            start += features[name][1]
        for name in self.head_modules:
            for kind, parameter in named[name].named_parameters(recurse=False):
                layout.append(_Parameter(name, kind, tuple(parameter.shape), start, parameter.stride()))
                start += parameter.numel()
        return tuple(layout), start

    def _computed_rank(self, module: str) -> int:
        """To which every slot's rank on a module is padded; where each slot has one rank, the largest of the pack."""
        return max(a.rank_of(module) if module in a.modules else a.largest_rank for a in self.adapters)

    def _beside(self, named: Mapping[str, nn.Module]) -> Iterator[tuple[str, str]]:
        """(module, kind) of what is trained of adapted modules besides A and B."""
        for name in self.target_modules:
            if any(_is_dora(adapter, name) for adapter in self.adapters):
                yield name, MAGNITUDE
            if named[name].bias is not None and any(_trains_bias(adapter, name) for adapter in self.adapters):
                yield name, BIAS

    @property
    def dropout(self) -> Tensor | None:
        return self._dropout if self.training else None

    # -- one slot ------------------------------------------------------------------------------------------------

    def reset(self, slot: int) -> None:
        """Give a slot its initial weights, and no gradient."""
        self._draw([slot])
        self.lane_gradients[:, slot].zero_()
        self.refresh()

    def _draw(self, slots: Sequence[int]) -> None:
        """Initial weights; what several slots begin with, those of one fold, is drawn once, as long as the longest."""
        by_key: dict[int, list[int]] = {}
        for slot in slots:
            self.values[slot].zero_()
            by_key.setdefault(self.adapters[slot].key, []).append(slot)
        for key, alike in by_key.items():
            for parameter in self._layout:
                if parameter.kind == "lora_A":
                    self._draw_a(key, parameter, [s for s in alike if parameter.module in self.adapters[s].modules])
                elif parameter.kind == MAGNITUDE:
                    own = [s for s in alike if _is_dora(self.adapters[s], parameter.module)]
                    parameter.of_all(self.values)[own] = self._magnitudes.initial(parameter.module)
                elif parameter.kind == BIAS:  # of a slot that does not train it too: it has the module's own
                    parameter.of_all(self.values)[alike] = self._biases[parameter.module]
                elif parameter.kind == "weight" and len(parameter.shape) == 1:  # a layer norm starts as the identity
                    parameter.of_all(self.values)[alike] = 1.0
                elif parameter.kind == "weight":
                    drawn = initial_head_weight(key, parameter.name, parameter.shape, self.head_deviation)
                    parameter.of_all(self.values)[alike] = drawn.to(self.device)

    def _draw_a(self, key: int, parameter: _Parameter, slots: Sequence[int]) -> None:
        if not slots:
            return
        longest = max(self.adapters[slot].rank_of(parameter.module) for slot in slots)
        drawn = initial_a(key, parameter.module, longest, parameter.shape[1]).to(self.device)
        for slot in slots:
            rank = self.adapters[slot].rank_of(parameter.module)
            parameter.of(self.values, slot)[:rank] = drawn[:rank]

    def _own(self, slot: int) -> Iterator[tuple[str, tuple[slice, ...], _Parameter]]:
        """Name, the slot's own part (its rank, not the pack's) and place of every parameter the slot trains."""
        adapter = self.adapters[slot]
        for parameter in self._layout:
            if parameter.kind == "lora_A" and parameter.module in adapter.modules:
                yield parameter.name, (slice(adapter.rank_of(parameter.module)), slice(None)), parameter
            elif parameter.kind == "lora_B" and parameter.module in adapter.modules:
                yield parameter.name, (slice(None), slice(adapter.rank_of(parameter.module))), parameter
            elif self._trains_whole(adapter, parameter):
                yield parameter.name, (slice(None),) * len(parameter.shape), parameter

    def _trains_whole(self, adapter: SlotAdapter, parameter: _Parameter) -> bool:
        if parameter.kind == MAGNITUDE:
            return _is_dora(adapter, parameter.module)
        if parameter.kind == BIAS:
            return _trains_bias(adapter, parameter.module)
        return not parameter.kind.startswith("lora_")

    def _read(self, storage: Tensor, slot: int) -> dict[str, Tensor]:
        return {
            name: parameter.of(storage, slot)[part].clone(memory_format=torch.contiguous_format)
            for name, part, parameter in self._own(slot)
        }

    def state(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's weights: ``MODULE.lora_A`` (rank, in), ``MODULE.lora_B`` (out, rank),
        ``MODULE.lora_magnitude_vector`` and ``MODULE.base_layer.bias`` (out,), head tensors by name."""
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
        largest = {slot: self.adapters[slot].largest_rank for slot in slots}
        ends = [(plane * self._plane, plane * self._plane + self._a_width) for plane in range(self.max_rank + 1)]
        for rank in range(self.max_rank):
            members = [slot for slot in slots if largest[slot] > rank]
            yield from self._cut(members, *ends[rank], "lora_A")
            yield from self._cut(members, ends[rank][1], ends[rank + 1][0], "lora_B")
        yield from self._cut(slots, ends[-1][0], self.values.shape[1], "head")

    def _cut(self, slots: Sequence[int], start: int, stop: int, kind: str) -> Iterator[Block]:
        for run in _consecutive(slots):
            most = stop - start if self.device.type == "cuda" else _BLOCK // (run.stop - run.start) + 1
            for column in range(start, stop, max(1, most)):
                yield Block(run, slice(column, min(stop, column + most)), kind)

    def refresh(self, slots: Sequence[int] | None = None) -> None:
        """Remake the compute copy of some slots (None: all) from the values: A as it is, B times the slot's scale; and
        the factors of their magnitudes."""
        slots = range(len(self.adapters)) if slots is None else slots
        for block in self.blocks(slots):
            if block.kind == "lora_A":
                block.of(self._compute).copy_(block.of(self.values))
            elif block.kind == "lora_B":
                torch.mul(block.of(self.values), self._scale[block.slots], out=block.of(self._compute))
        for name, members in self._magnitudes.members.items():
            own = [slot for slot in slots if slot in members]
            if own:
                a, b, m = (self._of_all(name, kind, self.values)[own] for kind in ("lora_A", "lora_B", MAGNITUDE))
                self._magnitudes.refresh(name, own, a, b * self._scale[own, :, None], m)

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
        return self.values.nbytes + self.lane_gradients.nbytes + sum(made.nbytes for made in self.computed)

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """What is made of the values for the forward."""
        return (self._compute, *self._magnitudes.tensors)

    def matrix_columns(self) -> Tensor:
        """bool (columns,): those of matrices, as opposed to vectors."""
        return self._columns(lambda parameter: len(parameter.shape) > 1)

    def decayed_columns(self) -> Tensor:
        """bool (columns,): those whose weights decay, as in transformers' Trainer: all but biases and norms."""
        return self._columns(lambda parameter: len(parameter.shape) > 1 or parameter.kind == MAGNITUDE)

    def _columns(self, chosen: Callable[[_Parameter], bool]) -> Tensor:
        columns = torch.ones(1, self.values.shape[1], dtype=torch.bool, device=self.device)
        for parameter in self._layout:
            if not chosen(parameter):
                parameter.of(columns, 0).fill_(False)
        return columns[0]

    def members(self, module: str) -> frozenset[int]:
        """The slots that train parameters of a module: of a head all, of another those that adapt it."""
        everyone = range(len(self.adapters))
        return frozenset(s for s in everyone if module in self.head_modules or module in self.adapters[s].modules)

    def has(self, module: str, kind: str) -> bool:
        """Whether a module has a parameter of a kind: ``bias``, say."""
        return any(p.module == module and p.kind == kind for p in self._layout)

    def matrices(self, module: str, kind: str, gradients: Tensor) -> Matrices:
        """One parameter of every slot, its gradient in ``gradients`` (slots, columns)."""
        source = self._compute if kind in ("lora_A", "lora_B") else self.values
        return Matrices(self._of_all(module, kind, source), self._of_all(module, kind, gradients))

    def magnitude(self, module: str, gradients: Tensor) -> Magnitude | None:
        """The magnitudes of every slot; None where none has any."""
        if module not in self._magnitudes.members:
            return None
        return self._magnitudes.of(module, self._of_all(module, MAGNITUDE, gradients))

    def biases(self, module: str, gradients: Tensor) -> Biases | None:
        """The biases of every slot; None where none trains its own."""
        if module not in self._biases:
            return None
        trains = torch.tensor([[float(_trains_bias(a, module))] for a in self.adapters], device=self.device)
        return Biases(self._of_all(module, BIAS, self.values), trains, self._of_all(module, BIAS, gradients))

    def _of_all(self, module: str, kind: str, storage: Tensor) -> Tensor:
        """One parameter of every slot in a storage, (slots, *shape)."""
        return next(p for p in self._layout if p.module == module and p.kind == kind).of_all(storage)

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
