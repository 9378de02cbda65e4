"""Trains the model itself, not adapters on it: full fine-tuning, its biases alone, or a correction of its last hidden
states. What adapters are compared with.

A plain loop over a copy of the base, one training at a time, and as like a pack's as it can be: the same examples in
the same order, the same initial head, schedule, clipping and AdamW, the same evaluation, in the same precision (weights
and optimizer stay in float32). The base is in eval mode here too, so its own dropout is off: what differs from an
adapter is what is trained, and nothing else. That one step of it is transformers' own is a test.

    full          every parameter of the model
    bitfit        the biases and the head (Ben Zaken et al. 2022)
    hidden-state  h + B1 A1 h + B2 A2 h on the last layer's hidden states h (tokens, hidden), and the head. Both
                  corrections see the same h, so together they are one of twice the rank. No weight of the model can
                  absorb them past a layer norm: this is not LoRA, and cannot be exported as one.

Below what is trained nothing is kept for the backward pass. The hidden-state adapter needs the frozen layers once per
example, from the same kind of cache that packs have; full fine-tuning can have none.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lora_search.adapters import initial_a, initial_head_weight, on_device
from lora_search.models.base import FrozenBase
from lora_search.models.quantization import scales_of
from lora_search.store.records import CellResult
from lora_search.tasks import as_trained_on
from lora_search.training.attention import attention_without_plans
from lora_search.training.batches import IntArray, MicroBatch, batch_order, step_count
from lora_search.training.cell import Cell, Tally, cell_result, units_of
from lora_search.training.engine import Engine
from lora_search.training.footprint import kept_for_backward, kept_of, largest_step, step_bytes
from lora_search.training.memory import is_out_of_memory, release_memory
from lora_search.training.optimizer import PackedAdamW, schedule_factor
from lora_search.training.pack_run import Listener, Step
from lora_search.training.precision import fast_products
from lora_search.training.prefix import PrefixCache

Kind = Literal["full", "bitfit", "hidden-state"]
CORRECTION_RANK = 8
"""Of each of the two corrections."""
_PREDICTED_AT_ONCE = 4
"""Of an evaluation, how many training micro-batches are computed at once."""

Result = TypeVar("Result")


class HiddenStateCorrections(nn.Module):
    """h + B1 A1 h + B2 A2 h, for h (..., hidden), A (rank, hidden) and B (hidden, rank); both B start at zero."""

    def __init__(self, hidden: int, rank: int = CORRECTION_RANK) -> None:
        super().__init__()
        self.lora_A = nn.ParameterList(nn.Parameter(torch.zeros(rank, hidden)) for _ in range(2))
        self.lora_B = nn.ParameterList(nn.Parameter(torch.zeros(hidden, rank)) for _ in range(2))

    def draw(self, key: int) -> None:
        """Initial weights, as those of an adapter."""
        with torch.no_grad():
            for place, (a, b) in enumerate(zip(self.lora_A, self.lora_B, strict=True)):
                a.copy_(initial_a(key, f"hidden_state.{place}", *a.shape))
                b.zero_()

    def forward(self, h: Tensor) -> Tensor:
        return sum((h @ a.t() @ b.t() for a, b in zip(self.lora_A, self.lora_B, strict=True)), start=h)


def has_biases(base: FrozenBase) -> bool:
    """Whether there is anything for BitFit to train in the base."""
    return any(_is_bias(name, base) for name, _ in base.model.named_parameters())


class _Running:
    """The optimizer of a training under way and its schedule.

    PyTorch's own schedulers and their optimizer hold each other: moments as large as the model would stay until the
    next garbage collection.
    """

    def __init__(
        self, optimizer: AdamW, trained: Sequence[nn.Parameter], factor: Callable[[int], float], max_grad_norm: float
    ) -> None:
        self.optimizer = optimizer
        self.trained = trained
        self.factor = factor
        self.max_grad_norm = max_grad_norm
        self.rate = float(optimizer.defaults["lr"])
        self.steps = 0

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.trained, self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self.factor(self.steps)
        self.optimizer.step()
        self.steps += 1
        self.optimizer.zero_grad(set_to_none=True)


class WholeModel:
    """Trains cells of one kind, one after another; each begins with the weights of the base.

    Args:
        engine: of the study: its base, data and settings. Left as it is.
        kind: what is trained.
    """

    def __init__(self, engine: Engine, kind: Kind) -> None:
        self.kind = kind
        self.base = engine.base
        self.training = engine.training
        self.objective = engine.objective
        self.settings = engine.settings
        self.memory = engine.memory.alone()
        self.forward = engine.forward
        self.storage = engine.forward.storage
        device = engine.settings.device
        self.targets = torch.from_numpy(engine.objective.targets).to(device)
        self._objective = engine.objective
        self.model: Any = copy.deepcopy(engine.base.model).to(device)
        self.corrections = self._corrected() if kind == "hidden-state" else None
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._trains(name))
        self.prefix = self._prefix() if kind == "hidden-state" else None
        self.depth = self.base.structure.layer_count - 1

    def _trains(self, name: str) -> bool:
        in_head = name.rpartition(".")[0] in self.base.structure.head_modules
        return in_head or self.kind == "full" or (self.kind == "bitfit" and _is_bias(name, self.base))

    def _corrected(self) -> HiddenStateCorrections:
        """Put the corrections behind the last layer."""
        structure = self.base.structure
        corrections = HiddenStateCorrections(structure.hidden_size).to(self.settings.device)

        def correct(layer: nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (corrections(output[0]), *output[1:])
            return corrections(output)

        last = self.model.get_submodule(structure.stack_name)[structure.layer_count - 1]
        last.register_forward_hook(correct)
        return corrections

    def _prefix(self) -> PrefixCache | None:
        """States that enter the last layer; None where rows depend on how they are padded."""
        if self.forward.facts.sees_padding or not self.settings.prefix_cache:
            return None
        return PrefixCache(
            self.model,
            self.base.structure.stack_name,
            [module.leaf for module in self.base.structure.linear_modules],
            self.storage,
            memory_budget=self.forward.prefix.memory_budget,
            token_budget=_PREDICTED_AT_ONCE * self.memory.token_budget,
            overhead=self.forward.prefix.overhead,
            folder=self.settings.cache_folder,
        )

    @property
    def trained(self) -> list[nn.Parameter]:
        """What is trained, each parameter once."""
        own = [] if self.corrections is None else list(self.corrections.parameters())
        return [*own, *(parameter for parameter in self.model.parameters() if parameter.requires_grad)]

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained, the head's among them."""
        return sum(parameter.numel() for parameter in self.trained)

    # -- training ------------------------------------------------------------------------------------------------

    def train(self, cell: Cell, listener: Listener | None = None, *, epochs: int | None = None) -> CellResult:
        """Train and score one cell; its adapter and modules mean nothing.

        Args:
            cell: the training.
            listener: called after every step.
            epochs: instead of the experiment's, to find out what one costs.

        Returns:
            its result; ``failed`` where the loss stopped being a number.

        Raises:
            torch.OutOfMemoryError: although each micro-batch is as small as can be.
        """
        start = time.perf_counter()
        self.reset(cell)
        with self._set_up() as resumed:
            tally = self._fit(cell, epochs or self.training.epochs, resumed, listener)
            examples = cell.evaluate if tally.failure is None else cell.evaluate[:0]
            predicted = self._within_memory(partial(self._predict, examples, resumed))
        seconds = time.perf_counter() - start
        return cell_result(
            cell, self.objective, tally, predicted, seconds=seconds, wall_seconds=seconds, pack=-1, pack_cells=1
        )

    def reset(self, cell: Cell) -> None:
        """The base's weights, the head and corrections a cell of this fold begins with, and what it aims for."""
        key = cell.slot().key
        self.objective = as_trained_on(self._objective, cell.train)
        self.targets = torch.from_numpy(self.objective.targets).to(self.settings.device)
        head = self.base.structure.head_modules
        original = dict(self.base.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.grad = None
                if name.rpartition(".")[0] not in head:
                    if parameter.requires_grad:
                        parameter.copy_(original[name])
                elif parameter.dim() > 1:
                    deviation = self.forward.head_deviation
                    parameter.copy_(initial_head_weight(key, name, tuple(parameter.shape), deviation))
                else:  # as in a pack: a layer norm starts as the identity, a bias at zero
                    parameter.fill_(1.0 if name.endswith(".weight") else 0.0)
        if self.corrections is not None:
            self.corrections.draw(key)

    @contextmanager
    def _set_up(self) -> Iterator[bool]:
        """Inside the block the model computes as a pack's does; whether it is resumed at its last layer."""
        device, dtype = self.settings.device, self.settings.dtype
        with ExitStack() as stack:
            stack.enter_context(fast_products(device, dtype))
            stack.enter_context(attention_without_plans(device))
            stack.enter_context(_precision(device, dtype))
            resumed = self.prefix is not None and self.prefix.prepare(self.depth)
            if resumed and self.prefix is not None:
                stack.enter_context(self.prefix.resumed(self.depth))
            yield resumed

    def _started(self, cell: Cell, steps: int) -> _Running:
        """AdamW with decay of matrices, as a pack has it."""
        spec, trained = self.training, self.trained
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": spec.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        betas = (PackedAdamW.BETA1, PackedAdamW.BETA2)
        optimizer = AdamW(groups, lr=cell.nuisance.learning_rate, betas=betas, eps=PackedAdamW.EPSILON, fused=True)
        factor = partial(schedule_factor, total=steps, warmup_ratio=spec.warmup_ratio)
        return _Running(optimizer, trained, factor, spec.max_grad_norm)

    def _fit(self, cell: Cell, epochs: int, resumed: bool, listener: Listener | None) -> Tally:
        spec, tally = self.training, Tally()
        steps = step_count(len(cell.train), spec.batch_size, epochs)
        running, of_epoch = self._started(cell, steps), units_of(self.objective, cell.train)
        for batch in batch_order(cell.train, spec.batch_size, epochs, cell.order_key):
            loss = self._within_memory(partial(self._gradients, batch, resumed))
            tokens = self.forward.token_count(self.objective.rows(batch))
            tally.record(loss, units_of(self.objective, batch) / of_epoch, tokens, steps, epochs)
            if tally.failure is not None:
                break
            running.step()
            if listener is not None:
                epoch = 1 + (tally.steps - 1) * epochs // steps
                listener(Step(tally.steps, steps, epoch, epochs, tally.tokens, loss))
        return tally

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """The work, again in smaller micro-batches where memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            if not self.memory.reduce_use(training=False):
                raise torch.OutOfMemoryError(message)
            for parameter in self.trained:
                parameter.grad = None
            release_memory(self.settings.device)

    def _gradients(self, batch: IntArray, resumed: bool) -> float:
        """Gradients of a batch are left in the parameters; returns its loss, a mean over its units."""
        units, total = units_of(self.objective, batch), 0.0
        for part in self._planned(batch, self.memory.token_budget, resumed):
            loss = self._loss(part, resumed) / units
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _planned(self, examples: IntArray, budget: int, resumed: bool) -> list[MicroBatch]:
        depth = self.depth if resumed else 0
        return self.forward.planner(depth, budget).plan([(0, self.objective.rows(examples))])

    def _loss(self, part: MicroBatch, resumed: bool) -> Tensor:
        """Summed over the units of some rows."""
        return self.objective.losses(self._logits(part, resumed), self._targets(part)).sum()

    def _targets(self, part: MicroBatch) -> Tensor:
        return self.targets[on_device(part.examples, self.targets.device)]

    def _logits(self, part: MicroBatch, resumed: bool) -> Tensor:
        batch = self.storage.batch(part.examples, part.width)
        if resumed and self.prefix is not None:
            self.prefix.feed(self.depth, batch)
        return self.model(**batch.arguments).logits  # type: ignore[no-any-return]

    @torch.no_grad()
    def _predict(self, examples: IntArray, resumed: bool) -> np.ndarray:
        """float32 (examples, columns) as the task has it."""
        found: dict[int, np.ndarray] = {}
        for part in self._planned(examples, _PREDICTED_AT_ONCE * self.memory.token_budget, resumed):
            answers = self.objective.answers(self._logits(part, resumed), self._targets(part)).cpu().numpy()
            found |= zip(map(int, part.examples), answers, strict=True)
        return self.objective.predictions(examples, [found[int(row)] for row in self.objective.rows(examples)])

    # -- memory --------------------------------------------------------------------------------------------------

    def step_bytes(self, cell: Cell) -> int:
        """What the largest step of a cell holds (see ``footprint``)."""
        self.reset(cell)
        weights = [*self.trained, *self.model.parameters(), *self.model.buffers(), *scales_of(self.model)]
        part = largest_step(cell, self.objective, self.storage.lengths, self.training.batch_size)

        def measure(some: MicroBatch) -> int:
            with kept_for_backward(weights) as kept:
                self._loss(some, resumed=False)
            return kept.bytes

        with _precision(self.settings.device, self.settings.dtype):
            kept = kept_of(part, measure)
        return step_bytes(weights, self.trainable_parameters, kept)


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Inside it products are in bf16, if that is asked for, of weights in float32.

    Without autocast's cache: it keeps the bf16 copy of a trained weight until the block ends, so that whoever takes
    steps inside goes on computing with the weights of the first.
    """
    return torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16, cache_enabled=False)


def _is_bias(name: str, base: FrozenBase) -> bool:
    owner, _, kind = name.rpartition(".")
    return kind == "bias" and owner not in base.structure.head_modules
