"""The training of one pack, from the first step to the scores (see ``engine``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from lora_search.adapters import MixedRowsError, Rows, key_of, on_device
from lora_search.spec.experiment import TrainingSpec
from lora_search.store.records import CellKey, CellResult
from lora_search.tasks import Objective, as_trained_on
from lora_search.training.batches import IntArray, MicroBatch, batch_order, step_count
from lora_search.training.cell import Cell, Tally, cell_result, units_of
from lora_search.training.checkpointing import checkpointed
from lora_search.training.frozen_forward import FrozenForward
from lora_search.training.lanes import Team, started_team
from lora_search.training.memory import is_out_of_memory, release_memory
from lora_search.training.memory_budget import MemoryBudget
from lora_search.training.optimizer import PackedAdamW
from lora_search.training.stalling import Stalling

_KEY_BITS = 31

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """Where a pack is: sent to the listener after each step.

    Attributes:
        loss: mean over the trainings that took part.
        losses: of each of them.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    tokens: int
    loss: float
    losses: Mapping[CellKey, float] = field(default_factory=dict)


Listener = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class TrainedCell:
    """A result with the weights behind it (see ``AdapterPack.state``), and whether it ended early (``stalling``)."""

    result: CellResult
    state: dict[str, Tensor]
    stalled: bool = False


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What came of a lane's part of some work: its result, or what was in the way and what the error said."""

    result: Result | None = None
    obstacle: Literal["mixed rows", "memory"] | None = None
    message: str = ""


class PackRun:
    """A pack in training, or only predicting.

    It runs in several lanes (see ``lanes``): each plans every step, computes its own micro-batches and updates its own
    slots. All come to the same decisions, from what they tell each other.

    Args:
        forward: the frozen model.
        memory: how much is computed at once; made smaller where that is too much.
        training: what is the same for every cell.
        objective: what is trained for: the loss, and what is predicted and scored.
        cells: the pack.
        number: its number, for the record.
        listener: called after every step.
    """

    def __init__(
        self,
        forward: FrozenForward,
        memory: MemoryBudget,
        training: TrainingSpec,
        objective: Objective,
        cells: Sequence[Cell],
        number: int,
        listener: Listener | None,
    ) -> None:
        self.forward = forward
        self.memory = memory
        self.training = training
        self.objective = objective
        # of each slot where what is trained on decides, else one for all
        self.objectives = [as_trained_on(objective, cell.train) for cell in cells]
        distinct = list(dict.fromkeys(self.objectives))
        targets = [torch.from_numpy(each.targets)[None] for each in distinct]
        self.targets = (torch.cat(targets) if len(targets) > 1 else targets[0]).to(memory.device)
        self.kinds = [distinct.index(each) for each in self.objectives]
        self.cells = cells
        self.number = number
        self.listener = listener
        self.pack = forward.new_pack([cell.slot() for cell in cells], memory.lanes)
        self.team = Team()
        self.depth = min(cell.depth(forward.structure.layer_count) for cell in cells)
        # a cell without adapter, of a model without a head to train, is predicted from as it is
        self.steps = [
            step_count(len(cell.train), training.batch_size, training.epochs)
            if cell.modules or forward.structure.head_modules
            else 0
            for cell in cells
        ]
        self.optimizer = PackedAdamW(
            self.pack,
            [cell.nuisance.learning_rate for cell in cells],
            self.steps,
            warmup_ratio=training.warmup_ratio,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            loraplus_lr_ratios=[training.loraplus_lr_ratio if cell.modules else 1.0 for cell in cells],
        )
        self.tallies = [Tally() for _ in cells]
        self.epoch_units = [units_of(objective, cell.train) for cell in cells]
        self.stalled: set[int] = set()
        self.watched = {
            slot: Stalling(self.objectives[slot].losses_of_nothing(cell.train), objective.units, self.steps[slot])
            for slot, cell in enumerate(cells)
            if cell.may_stall
        }
        self.padded_tokens = 0
        self.real_tokens = 0
        self.split = False
        self.resumed_at = self.depth if forward.resumes(self.depth) else None
        self.mixes_slots = forward.mixes_slots((*self.pack.target_modules, *self.pack.head_modules))

    # -- training ------------------------------------------------------------------------------------------------

    def run(self) -> list[TrainedCell]:
        start = time.perf_counter()
        wanted, predictions = self._in_lanes(self._train_and_predict)
        seconds = time.perf_counter() - start
        # a token trained on goes forward and back, a token predicted from only forward
        work = [2 * tally.tokens + self._token_count(part) for tally, part in zip(self.tallies, wanted, strict=True)]
        return [
            TrainedCell(
                self._result(slot, predictions[slot], seconds, work[slot] / max(1, sum(work))),
                self.pack.state(slot),
                slot in self.stalled,
            )
            for slot in range(len(self.cells))
        ]

    def _train_and_predict(self) -> tuple[list[IntArray], list[np.ndarray]]:
        """Examples of each slot, none of one that failed, and what it predicts for them."""
        self._train()
        none = np.empty(0, dtype=np.int64)
        wanted = [
            cell.evaluate if tally.failure is None else none
            for cell, tally in zip(self.cells, self.tallies, strict=True)
        ]
        return wanted, self._predict(wanted)

    def _in_lanes(self, work: Callable[[], Result]) -> Result:
        """Do the work in every lane; what lane 0 comes to."""
        with started_team(self.memory.lanes, partial(self._as_lane, work)) as team:
            return self._as_lane(work, team)

    def _as_lane(self, work: Callable[[], Result], team: Team) -> Result:
        self.team = team
        self.pack.take_lane(team.lane)
        with self.forward.running(self.pack, self.resumed_at):
            return work()

    def _train(self) -> None:
        spec = self.training
        orders = [batch_order(cell.train, spec.batch_size, spec.epochs, cell.order_key) for cell in self.cells]
        self.pack.training = True
        for step in range(max(self.steps)):
            going = [s for s, own in enumerate(self.tallies) if own.failure is None and s not in self.stalled]
            active = [s for s in going if step < self.steps[s]]
            if not active:
                break
            batches = [(slot, next(orders[slot])) for slot in active]
            of_lanes = self._within_memory(partial(self._accumulate, batches, step))
            self.optimizer.step([slot for slot in active if self.team.owns(slot, len(self.cells))])
            self._record(step, batches, [sum(losses) for losses in zip(*of_lanes, strict=True)])
            self.team.meet()
        self.pack.training = False

    def _within_memory(self, work: Callable[[], Result]) -> list[Result]:
        """Every lane's result of the work, done again with smaller micro-batches or one slot in each where that is what
        it takes in one of them."""
        while True:
            outcomes = self.team.share(self._tried(work))
            obstacles = {outcome.obstacle: outcome.message for outcome in outcomes if outcome.obstacle is not None}
            if not obstacles:
                return [outcome.result for outcome in outcomes]  # type: ignore[misc]
            if "mixed rows" in obstacles:
                self.mixes_slots = False
            if "memory" in obstacles and not self.memory.reduce_use(training=self.pack.training):
                raise torch.OutOfMemoryError(obstacles["memory"])
            release_memory(self.pack.device)
            self.pack.zero_gradients()

    def _tried(self, work: Callable[[], Result]) -> _Outcome[Result]:
        try:
            return _Outcome(work())
        except MixedRowsError as error:
            return _Outcome(obstacle="mixed rows", message=str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return _Outcome(obstacle="memory", message=str(error))

    def _accumulate(self, batches: list[tuple[int, IntArray]], step: int) -> list[float]:
        """Forward and backward of this lane's part of a step; gradients are left in the pack.

        Returns:
            Its part of the loss of every slot.
        """
        shares = self._plan(batches, self.memory.token_budget)
        units = {slot: units_of(self.objective, examples) for slot, examples in batches}
        losses = torch.zeros(len(self.cells), device=self.pack.device)
        with self._layers_kept():
            for part in shares[self.team.lane]:
                self._forward_backward(part, units, losses, step)
        parts = [part for share in shares for part in share]
        self.padded_tokens += sum(part.padded_tokens for part in parts)
        self.real_tokens += sum(self.forward.token_count(part.examples) for part in parts)
        return losses.tolist()

    @contextmanager
    def _layers_kept(self) -> Iterator[None]:
        """Inside the block the layers keep what there is room for."""
        # below the lowest adapted layer nothing is kept anyway
        layers = self.forward.layers(self.depth) if self.memory.checkpointing else ()
        with checkpointed(layers):
            yield

    def _plan(self, examples: list[tuple[int, IntArray]], budget: int) -> list[list[MicroBatch]]:
        """The micro-batches of each lane, of the rows of some examples of each slot."""
        batches = [(slot, self.objective.rows(part)) for slot, part in examples]
        planner = self.forward.planner(self.depth, budget)
        if self.mixes_slots or len(batches) == 1:
            return planner.plan_lanes(batches, self.team.size)
        self.split = True
        return planner.deal([part for batch in batches for part in planner.plan([batch])], self.team.size)

    def _forward_backward(self, part: MicroBatch, units: dict[int, int], losses: Tensor, step: int) -> None:
        """Of every row its share of its slot's loss: its own sum, of the units of the slot's whole batch."""
        logits = self._logits(part, step)
        targets = self._targets(part)
        shares = on_device([1.0 / units[slot] for slot in part.slots], logits.device)
        weighted = self.objective.losses(logits, targets) * shares
        weighted.sum().backward()  # type: ignore[no-untyped-call]
        losses.index_add_(0, on_device(part.slots, logits.device), weighted.detach())

    def loss_of(self, part: MicroBatch) -> Tensor:
        """The loss of some rows, summed over their units. To be called while the forward is running."""
        return self.objective.losses(self._logits(part, 0), self._targets(part)).sum()

    def _targets(self, part: MicroBatch) -> Tensor:
        """(rows, ...), what the answers are compared with."""
        rows = on_device(part.examples, self.targets.device)
        if len(self.targets) == 1:
            return self.targets[0][rows]
        return self.targets[on_device([self.kinds[slot] for slot in part.slots], rows.device), rows]

    def _token_count(self, examples: IntArray) -> int:
        """Tokens of some examples, without padding."""
        return self.forward.token_count(self.objective.rows(examples))

    def _logits(self, part: MicroBatch, step: int | None) -> Tensor:
        """(rows, ...) in the precision of the base."""
        self.pack.rows = self._rows(part, step)
        return self.forward.logits(part.examples, part.width, self.resumed_at)

    def _rows(self, part: MicroBatch, step: int | None) -> Rows:
        if step is None or self.pack.dropout is None:
            return Rows(part.slots, width=part.width)
        own = {slot: key_of(self.cells[slot].order_key, "dropout", step) % (1 << _KEY_BITS) for slot in set(part.slots)}
        keys = [
            (own[slot] + int(example + 1) * 0x9E3779B1) % (1 << _KEY_BITS)
            for slot, example in zip(part.slots, part.examples, strict=True)
        ]
        return Rows(
            part.slots,
            on_device(keys, self.pack.device),
            width=part.width,
            shared_key=own[part.slots[0]],
            pooled=self.forward.pooled_tokens(part.examples),
        )

    def _record(self, step: int, batches: list[tuple[int, IntArray]], losses: list[float]) -> None:
        spec = self.training
        for slot, examples in batches:
            share = units_of(self.objective, examples) / self.epoch_units[slot]
            tokens = self._token_count(examples)
            self.tallies[slot].record(losses[slot], share, tokens, self.steps[slot], spec.epochs)
            if slot in self.watched and self.watched[slot].stalls(examples, losses[slot]):
                self.stalled.add(slot)
                self.tallies[slot].last_epoch_loss = self.watched[slot].recent_loss
        if self.listener is not None and self.team.lane == 0:
            total = max(self.steps)
            epoch = 1 + step * spec.epochs // total
            each = {self.cells[slot].key: losses[slot] for slot, _ in batches}
            mean = sum(losses[slot] for slot, _ in batches) / len(batches)
            self.listener(
                Step(step + 1, total, epoch, spec.epochs, sum(tally.tokens for tally in self.tallies), mean, each)
            )

    # -- evaluation ----------------------------------------------------------------------------------------------

    def predict(self, wanted: Sequence[IntArray]) -> list[np.ndarray]:
        """What each slot predicts for its examples; float32 (examples, columns)."""
        return self._in_lanes(partial(self._predict, wanted))

    def _predict(self, wanted: Sequence[IntArray]) -> list[np.ndarray]:
        found: list[dict[int, np.ndarray]] = [{} for _ in wanted]
        for answered in self._within_memory(partial(self._predict_part, wanted)):
            for part, answers in answered:
                for slot, row, answer in zip(part.slots, part.examples, answers, strict=True):
                    found[slot][int(row)] = answer
        return [
            self.objectives[slot].predictions(
                examples, [found[slot][int(row)] for row in self.objective.rows(examples)]
            )
            for slot, examples in enumerate(wanted)
        ]

    @torch.no_grad()
    def _predict_part(self, wanted: Sequence[IntArray]) -> list[tuple[MicroBatch, np.ndarray]]:
        """This lane's micro-batches, with the answers (rows, ...) of each."""
        shares = self._plan(list(enumerate(wanted)), 4 * self.memory.token_budget)
        answers = self.objective.answers
        return [
            (part, answers(self._logits(part, None), self._targets(part)).cpu().numpy())
            for part in shares[self.team.lane]
        ]

    def _result(self, slot: int, predicted: np.ndarray, seconds: float, share: float) -> CellResult:
        return cell_result(
            self.cells[slot],
            self.objective,
            self.tallies[slot],
            predicted,
            seconds=seconds * share,
            wall_seconds=seconds,
            pack=self.number,
            pack_cells=len(self.cells),
        )
