"""A pack: the adapters and heads of several slots over one frozen model.

Storage is one float32 matrix (slots, parameters) each for values and gradients; every parameter of every slot is a
view into it. So clipping is one row norm, AdamW a dozen vector operations whatever the number of slots and modules,
and a slot is saved, loaded or emptied as one row. Columns are laid out [all A | all B | heads].

The *compute* copy holds A and scale * B in the precision of the matrix products; ``refresh`` remakes it after an
update.

A pack does not know data, losses or schedules, and nothing of how a model is loaded: it gets a module tree and names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from lora_search.adapters.initial import initial_a, initial_head_weight
from lora_search.adapters.lane import Lane
from lora_search.adapters.layers import Matrices
from lora_search.adapters.rows import Rows


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
    """Where one parameter lies in the columns: A, B or a head tensor of ``module``."""

    module: str
    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + prod(self.shape))

    @property
    def name(self) -> str:
        return f"{self.module}.{self.kind}"


def _features(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a frozen linear module; transformers' Conv1D stores its weight as (in, out)."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1]


class AdapterPack:
    """Slots over ``model``.

    Args:
        model: the frozen module tree. It is changed only while attached.
        adapters: one per slot.
        head_modules: names of the nn.Linear and nn.LayerNorm modules of which each slot trains its own.
        head_deviation: standard deviation of initial head weights.
        dtype: precision of the LoRA products; values, gradients and heads are float32.
    """

    def __init__(
        self,
        model: nn.Module,
        adapters: Sequence[SlotAdapter],
        head_modules: Sequence[str],
        *,
        head_deviation: float = 0.02,
        dtype: torch.dtype = torch.float32,
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
        self._layout = self._lay_out(named)
        columns = self._layout[-1].columns.stop if self._layout else 0
        self.values = torch.zeros(len(adapters), columns, device=self.device)
        self.gradients = torch.zeros_like(self.values)
        self._a_end = self._end_of("lora_A", 0)
        self._b_end = self._end_of("lora_B", self._a_end)
        self._compute = torch.zeros(len(adapters), self._b_end, device=self.device, dtype=dtype)
        self._scale = torch.tensor([[adapter.scale] for adapter in adapters], device=self.device)
        self.lanes = [Lane(self, model, self.gradients)]
        self.training = False
        drop = torch.tensor([adapter.dropout for adapter in adapters], device=self.device)
        self._dropout = drop if any(adapter.dropout > 0 for adapter in adapters) else None
        for slot in range(len(adapters)):
            self._draw(slot)
        self.refresh()

    def _lay_out(self, named: Mapping[str, nn.Module]) -> tuple[_Parameter, ...]:
        shapes = [
            *((name, "lora_A", (self.max_rank, _features(named[name])[0])) for name in self.target_modules),
            *((name, "lora_B", (_features(named[name])[1], self.max_rank)) for name in self.target_modules),
            *(
                (name, kind, tuple(parameter.shape))
                for name in self.head_modules
                for kind, parameter in named[name].named_parameters(recurse=False)
            ),
        ]
        layout, start = [], 0
        for module, kind, shape in shapes:
            layout.append(_Parameter(module, kind, shape, start))
            start += prod(shape)
        return tuple(layout)

    def _end_of(self, kind: str, default: int) -> int:
        return max((p.columns.stop for p in self._layout if p.kind == kind), default=default)

    @property
    def dropout(self) -> Tensor | None:
        return self._dropout if self.training else None

    # -- one slot ------------------------------------------------------------------------------------------------

    def reset(self, slot: int) -> None:
        """Give a slot its initial weights, and no gradient."""
        self._draw(slot)
        self.gradients[slot].zero_()
        self.refresh()

    def _draw(self, slot: int) -> None:
        adapter = self.adapters[slot]
        self.values[slot].zero_()
        for parameter in self._layout:
            view = self.values[slot, parameter.columns].view(parameter.shape)
            if parameter.kind == "lora_A" and parameter.module in adapter.modules:
                drawn = initial_a(adapter.key, parameter.module, adapter.rank, parameter.shape[1])
                view[: adapter.rank] = drawn.to(self.device)
            elif parameter.kind == "weight":
                if len(parameter.shape) == 1:  # a layer norm starts as the identity
                    view.fill_(1.0)
                else:
                    drawn = initial_head_weight(adapter.key, parameter.name, parameter.shape, self.head_deviation)
                    view.copy_(drawn.to(self.device))

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
            name: storage[slot, parameter.columns].view(parameter.shape)[part].clone()
            for name, part, parameter in self._own(slot)
        }

    def state(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's weights: ``MODULE.lora_A`` (rank, in), ``MODULE.lora_B`` (out, rank), head tensors by
        name."""
        return self._read(self.values, slot)

    def slot_gradients(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's gradients, of all lanes together, named and shaped as in ``state``."""
        return self._read(torch.stack([lane.gradients for lane in self.lanes]).sum(0), slot)

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Put weights named and shaped as in ``state`` into a slot.

        Raises:
            KeyError: a parameter of the slot is missing.
            ValueError: a shape differs.
        """
        for name, part, parameter in self._own(slot):
            view = self.values[slot, parameter.columns].view(parameter.shape)[part]
            if view.shape != state[name].shape:
                raise ValueError(f"{name}: the slot has shape {tuple(view.shape)}, got {tuple(state[name].shape)}")
            view.copy_(state[name])
        self.refresh()

    # -- all slots -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Remake the compute copy from the values: A as it is, B times the slot's scale."""
        self._compute[:, : self._a_end] = self.values[:, : self._a_end]
        torch.mul(self.values[:, self._a_end : self._b_end], self._scale, out=self._scaled_b())

    def _scaled_b(self) -> Tensor:
        return self._compute[:, self._a_end : self._b_end]

    def finish_gradients(self) -> None:
        """Add up the lanes' gradients and turn those of scale * B into those of B; call once, after the last backward
        of a step."""
        for lane in self.lanes[1:]:
            self.gradients.add_(lane.gradients)
        self.gradients[:, self._a_end : self._b_end].mul_(self._scale)

    def zero_gradients(self) -> None:
        """Forget the gradients of every lane."""
        for lane in self.lanes:
            lane.gradients.zero_()

    @property
    def nbytes(self) -> int:
        """Bytes of all slots together: values, every lane's gradients and the compute copy."""
        return self.values.nbytes + sum(lane.gradients.nbytes for lane in self.lanes) + self._compute.nbytes

    def matrix_columns(self) -> Tensor:
        """bool (parameters,): the columns of matrices, as opposed to biases and norms."""
        columns = torch.zeros(self.values.shape[1], dtype=torch.bool, device=self.device)
        for parameter in self._layout:
            columns[parameter.columns] = len(parameter.shape) > 1
        return columns

    def has(self, module: str, kind: str) -> bool:
        """Whether a module has a parameter of a kind: ``bias``, say."""
        return any(p.module == module and p.kind == kind for p in self._layout)

    def matrices(self, module: str, kind: str, gradients: Tensor) -> Matrices:
        """One parameter of every slot, its gradient in ``gradients`` (slots, parameters)."""
        parameter = next(p for p in self._layout if p.module == module and p.kind == kind)
        shape = (len(self.adapters), *parameter.shape)
        source = self._compute if kind.startswith("lora_") else self.values
        return Matrices(source[:, parameter.columns].view(shape), gradients[:, parameter.columns].view(shape))

    # -- lanes ---------------------------------------------------------------------------------------------------

    def add_lane(self, model: nn.Module) -> Lane:
        """One more place to compute micro-batches at, over a model like the first."""
        self.lanes.append(Lane(self, model, torch.zeros_like(self.values)))
        return self.lanes[-1]

    @property
    def rows(self) -> Rows:
        """What the first lane's next forward computes."""
        return self.lanes[0].rows

    @rows.setter
    def rows(self, rows: Rows) -> None:
        self.lanes[0].rows = rows

    @contextmanager
    def attached(self) -> Iterator[AdapterPack]:
        """The models of all lanes run with this pack's slots inside the block, and are as they were after it."""
        with ExitStack() as stack:
            for lane in self.lanes:
                stack.enter_context(lane.attached())
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
