"""What one study remembers: its trials, its cells, and nothing of how they are stored.

Plain dataclasses that every floor above may build and read without Optuna, SQLite or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_search.spec import AdapterSpec, Nuisance

Origin = Literal["guess", "sampler", "warm-start"]
TrialState = Literal["running", "complete", "pruned", "failed"]
CellState = Literal["complete", "failed"]


@dataclass(frozen=True, order=True, slots=True)
class CellKey:
    """The name of one training. Keys sort by trial, then repeat, then fold; all three count from 0."""

    trial: int
    repeat: int
    fold: int

    def __str__(self) -> str:
        return f"trial {self.trial}, repeat {self.repeat}, fold {self.fold}"


@dataclass(frozen=True, slots=True)
class BaselineKey:
    """The name of one training of what is no adapter.

    Attributes:
        baseline: as in ``baselines.include``.
        learning_rate: None for what has none.
        repeat, fold: which examples, counted from 0.
    """

    baseline: str
    learning_rate: float | None
    repeat: int
    fold: int

    def __str__(self) -> str:
        rate = "" if self.learning_rate is None else f", learning rate {self.learning_rate:g}"
        return f"{self.baseline}{rate}, repeat {self.repeat}, fold {self.fold}"


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One adapter spec under evaluation.

    Attributes:
        trial: its number, the same as Optuna's.
        adapter: what is compared.
        nuisance: what is tuned so that the comparison is fair.
        adapter_parameters: sum of r (in + out) over the adapted modules, and of what else of them is trained.
        head_parameters: what is trained besides the adapter: the task head and any pooler the checkpoint lacked.
        origin: ``guess`` (what people would guess), ``sampler`` or ``warm-start``.
        state: ``pruned`` is a trial that racing stopped.
        failure: why it failed; ``None`` otherwise.
    """

    trial: int
    adapter: AdapterSpec
    nuisance: Nuisance
    adapter_parameters: int
    head_parameters: int
    origin: Origin
    state: TrialState = "running"
    failure: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CellResult:
    """What one training left behind.

    Attributes:
        key: which training.
        state: ``failed`` is a training that diverged.
        scores: on the fold, by the names of the metrics; NaN where there was nothing to score, empty for a failed cell.
        train_loss: mean loss of the last epoch; NaN where it stopped being a number.
        examples: int64 (n,), the fold's examples, as positions in the encoded data.
        probabilities: float32 (n, columns), the out-of-fold prediction for each: the probability of each label, or
            what a task counts instead; n is 0 for a failed cell.
        train_examples: examples in the training part of the fold.
        steps: optimizer steps taken.
        tokens: real tokens trained on, all epochs together, padding not counted.
        seconds: the cell's own compute seconds: its share of the pack, by token-layers processed.
        wall_seconds: wall-clock seconds of the whole pack.
        pack: number of the pack it trained in.
        pack_cells: how many cells that pack trained.
        failure: why it failed; ``None`` for a complete cell.

    Raises:
        ValueError: the fields contradict each other.
    """

    key: CellKey
    state: CellState
    scores: Mapping[str, float]
    train_loss: float
    examples: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    train_examples: int
    steps: int
    tokens: int
    seconds: float
    wall_seconds: float
    pack: int
    pack_cells: int
    failure: str | None = None

    def __post_init__(self) -> None:
        if (self.state == "failed") != (self.failure is not None):
            raise ValueError(f"failure must be given for a failed cell and for no other, got {self.failure!r}")
        if (self.state == "complete") != bool(self.scores):
            raise ValueError(f"scores must be given for a complete cell and for no other, got {dict(self.scores)}")
        if self.examples.ndim != 1 or self.probabilities.ndim != 2 or len(self.examples) != len(self.probabilities):
            raise ValueError(
                "examples must have shape (n,) and probabilities (n, labels), "
                f"got {self.examples.shape} and {self.probabilities.shape}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class BaselineResult:
    """One training of a baseline.

    Attributes:
        key: which.
        result: what it left behind; its own key and pack mean nothing.
        trainable_parameters: numbers that were learned, the head's among them.
        step_bytes: what the largest step of such a training holds (see ``training.footprint``); None of what takes no
            steps.
    """

    key: BaselineKey
    result: CellResult
    trainable_parameters: int
    step_bytes: int | None
