"""A whole study in a second: the engine is replaced by a formula, everything around it is real.

And a way to die in it: at the n-th use of the store or of Optuna, before or after it took effect, as by ``kill -9``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from lora_search.store.ledger import Ledger
from lora_search.store.records import CellResult
from lora_search.study import runner

FAILING_RATE = 0.03
"""Trials with a higher learning rate diverge."""


def diverges(cell: Any) -> bool:
    """Whether a training fails; for a test to replace."""
    return bool(cell.nuisance.learning_rate > FAILING_RATE)


def advantage(cell: Any) -> float:
    """How much more often than by the formula a training is right; for a test to replace."""
    return 0.0


class FormulaEngine:
    """Which examples are answered right follows from the adapter's size, the fold, the trial's own luck, and how hard
    an example is."""

    notes = ()

    def __init__(self, base: Any, data: Any, training: Any, settings: Any) -> None:
        self.settings = settings
        self.labels = data.labels
        self.budgets = {"token_budget": settings.token_budget, "checkpointing": False}

    def train(self, cells: Any, pack: int, listener: Any = None) -> list[Any]:
        return [SimpleNamespace(result=_result(cell, self.labels, pack, len(cells)), stalled=False) for cell in cells]

    def step_bytes(self, cell: Any) -> int:
        return 1000 * (1 + len(cell.modules))


def _result(cell: Any, labels: Any, pack: int, together: int) -> CellResult:
    key, size = cell.key, sum(module.in_features + module.out_features for module in cell.modules)
    luck = np.random.default_rng([key.trial, key.repeat, key.fold, size])
    level = 0.7 + 0.02 * np.log1p(cell.adapter.rank * size / 64) + 0.02 * np.random.default_rng(key.trial).normal()
    level += advantage(cell)
    failed = diverges(cell)
    examples = cell.evaluate[:0] if failed else cell.evaluate
    hard = np.random.default_rng(0).permutation(len(labels))[examples] / len(labels)
    right = hard + 0.02 * luck.normal(size=len(examples)) < level + 0.01 * key.fold
    score = float(right.mean()) if len(right) else 0.0
    second = np.where(right == (labels[examples] == 1), 0.9, 0.1).astype(np.float32)
    return CellResult(
        key=key,
        state="failed" if failed else "complete",
        scores={}
        if failed
        else {"accuracy": score, "macro_f1": score, "matthews_correlation": 2 * score - 1, "log_loss": 1 - score},
        train_loss=float("nan") if failed else 1 - score,
        examples=examples,
        probabilities=np.stack([1 - second, second], axis=1),
        train_examples=len(cell.train),
        steps=10,
        tokens=1000,
        seconds=1.0,
        wall_seconds=float(together),
        pack=pack,
        pack_cells=together,
        failure="the loss was nan at step 3 of 10" if failed else None,
    )


class Killed(BaseException):
    """The process is gone; nobody may handle this."""


WRITES = [
    (Ledger, "add_trial"),
    (Ledger, "set_trial_state"),
    (Ledger, "add_cell"),
    (Ledger, "add_baseline"),
    (Ledger, "set_facts"),
    (Ledger, "write_examples"),
    (Ledger, "write_tables"),
    (Ledger, "write_verdict"),
    (optuna.Study, "enqueue_trial"),
    (optuna.Study, "ask"),
    (optuna.Study, "tell"),
    (optuna.Trial, "suggest_categorical"),
    (optuna.Trial, "suggest_float"),
    (optuna.Trial, "set_user_attr"),
]


@contextmanager
def simulated(
    monkeypatch: pytest.MonkeyPatch, prepared: Any, before_write: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Studies of the prepared experiment inside the block are simulated; ``before_write`` hears of every write."""
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Engine", FormulaEngine)
        patch.setattr(runner, "prepare", lambda experiment: prepared)
        patch.setattr(runner, "check_export", lambda prepared: ())  # which would begin with a real engine
        if before_write is not None:
            for owner, name in WRITES:
                patch.setattr(owner, name, _heard(getattr(owner, name), name, before_write))
        yield


def _heard(write: Callable[..., Any], name: str, hear: Callable[[str], None]) -> Callable[..., Any]:
    def heard(*arguments: Any, **settings: Any) -> Any:
        hear(name)
        return write(*arguments, **settings)

    return heard


def die_at(number: int) -> Callable[[str], None]:
    """Killed before the write of this number."""
    seen = 0

    def hear(name: str) -> None:
        nonlocal seen
        if seen == number:
            raise Killed(name)
        seen += 1

    return hear
