"""The loss of a batch is a mean over the units of its task, however the batch is cut."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine_builders import LABELS, make_cell, make_engine, tiny_base, toy_data
from torch.nn import functional as F

from lora_search.tasks.text_classification import ClassObjective, TextClassification
from lora_search.training import engine as engine_module


@dataclass(frozen=True, eq=False)
class UnequalObjective(ClassObjective):
    """As if example i had 1 + i % 5 tokens to answer for, each with the example's label."""

    @property
    def units(self):
        return 1 + np.arange(len(self.targets)) % 5

    def losses(self, logits, targets):
        return F.cross_entropy(logits.float(), targets[:, 0], reduction="none") * targets[:, 1]


class UnequalTask(TextClassification):
    def objective(self, data):
        inner = UnequalObjective(data.labels, len(data.label_names))
        columns = np.stack([inner.targets, inner.units], axis=1)
        return _WithTargets(columns, inner)


@dataclass(frozen=True, eq=False)
class _WithTargets:
    targets: np.ndarray
    inner: UnequalObjective

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.fixture
def unequal(monkeypatch):
    monkeypatch.setattr(engine_module, "task_of", lambda name: UnequalTask())


def trained(budget, cells):
    data = toy_data()
    engine = make_engine(tiny_base("bert"), data, epochs=1, batch_size=12, token_budget=budget)
    return engine, [result.result for result in engine.train(cells, pack=0)]


def test_the_loss_is_a_mean_over_units(unequal):
    cell = make_cell(tiny_base("bert"), rate=1e-12, first=12, everything=True)
    _, (result,) = trained(10_000, [cell])
    chosen = [list(result.examples).index(example) for example in cell.train]
    labels, units = toy_data().labels[cell.train], 1 + cell.train % 5
    nats = -np.log(result.probabilities[chosen, labels].astype(np.float64))
    assert result.train_loss == pytest.approx((units * nats).sum() / units.sum(), rel=1e-5)
    assert abs(result.train_loss - nats.mean()) > 1e-4


def test_micro_batches_do_not_change_it(unequal):
    base = tiny_base("bert")
    cells = [make_cell(base, trial=trial, rank=rank) for trial, rank in enumerate((2, 4))]
    _, whole = trained(10_000, cells)
    _, cut = trained(24, cells)
    for ours, theirs in zip(whole, cut, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    _, (alone,) = trained(10_000, [replace(cells[1])])
    assert alone.train_loss == pytest.approx(whole[1].train_loss, rel=1e-5)
    assert whole[0].probabilities.shape[1] == len(LABELS)
