"""Trainings that teach nothing end early; others, and those that may not, go on."""

import numpy as np
import pytest
from engine_builders import make_cell, make_engine, tiny_base, toy_data
from hypothesis import given
from hypothesis import strategies as st

from lora_search.tasks.task import frequency_losses
from lora_search.training.stalling import CHECKED_AT, Stalling, has_stalled

NOTHING = float(np.log(2))


def gains(mean, spread, steps, seed=0):
    return list(np.random.default_rng(seed).normal(mean, spread, steps))


@pytest.mark.parametrize(
    ("mean", "spread", "steps", "stalled"),
    [
        (0.0, 0.02, 60, True),
        (-0.5, 0.2, 60, True),  # worse than knowing nothing
        (0.05, 0.02, 60, False),
        (0.0, 0.5, 60, False),  # nobody can tell
        (0.0, 0.02, 18, False),  # too few steps
    ],
)
def test_what_surely_gains_nothing_has_stalled(mean, spread, steps, stalled):
    assert has_stalled(gains(mean, spread, steps), NOTHING) is stalled


def test_what_has_begun_to_learn_has_not():
    assert not has_stalled([0.0] * 40 + list(np.linspace(0.0, 0.2, 20)), NOTHING)


@given(st.integers(20, 200), st.integers(0, 100))
def test_few_that_learn_a_little_are_ended(steps, seed):
    """At the threshold itself one in twenty would be."""
    found = [has_stalled(gains(0.021 * NOTHING, 0.02, steps, seed=1000 * seed + one), NOTHING) for one in range(20)]
    assert sum(found) <= 6


def test_it_is_looked_at_twice():
    watched = Stalling(np.full(4, NOTHING), np.ones(4, dtype=np.int64), steps=40)
    found = [watched.stalls(np.array([step % 4]), NOTHING) for step in range(40)]
    assert [step + 1 for step, stalled in enumerate(found) if stalled] == [int(40 * share) for share in CHECKED_AT]
    assert watched.recent_loss == pytest.approx(NOTHING)


def test_knowing_frequencies_loses_the_entropy():
    answers = np.array([0, 0, 0, 1])
    lost = frequency_losses(answers, 3)[answers]
    assert lost.mean() == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25), abs=0.3)
    assert np.isfinite(frequency_losses(answers, 3)).all()


def pack(**choices):
    """One that learns nothing, at a rate of next to nothing, beside one that learns."""
    base = tiny_base("bert")
    cells = [make_cell(base, trial, rate=rate, **choices) for trial, rate in enumerate((1e-9, 2e-2))]
    return base, cells


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_training_that_teaches_nothing_leaves_its_pack(lanes):
    base, cells = pack(may_stall=True)
    engine = make_engine(base, toy_data(), epochs=16, batch_size=8, lanes=lanes)
    stuck, learning = engine.train(cells, pack=0)
    assert stuck.stalled
    assert not learning.stalled
    assert stuck.result.steps == learning.result.steps // 2
    assert stuck.result.state == "complete"
    assert stuck.result.scores["log_loss"] == pytest.approx(np.log(3), abs=0.2)
    assert stuck.result.train_loss == pytest.approx(np.log(3), abs=0.2)
    (alone,) = engine.train(cells[1:], pack=1)
    assert learning.result.train_loss == pytest.approx(alone.result.train_loss, rel=1e-5)


def test_where_it_may_not_it_is_trained_to_the_end():
    base, cells = pack()
    trained = make_engine(base, toy_data(), epochs=16, batch_size=8).train(cells, pack=0)
    assert not any(cell.stalled for cell in trained)
    assert len({cell.result.steps for cell in trained}) == 1
