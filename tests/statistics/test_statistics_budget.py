"""What more cells would settle: predictions that come true, and counts that make sense."""

from __future__ import annotations

import numpy as np
import pytest

from lora_search.statistics import Question, ScoreMatrix, more_cells_needed, pairwise
from lora_search.statistics.budget import chances_to_settle, finalist_rows

FOLDS = 5


def matrix(scores: np.ndarray, repeats: int = 1) -> ScoreMatrix:
    return ScoreMatrix(
        trials=tuple(range(len(scores))),
        columns=tuple((repeat, fold) for repeat in range(repeats) for fold in range(FOLDS)),
        scores=scores,
        parameters=np.arange(1.0, len(scores) + 1),
        seconds=np.zeros(len(scores)),
    )


def asked(margin: float) -> Question:
    return Question("accuracy", margin, 0.95, FOLDS)


def exact(differences: list[float]) -> np.ndarray:
    """Two trials whose paired differences (second minus first) are these."""
    return 0.8 + np.array([np.zeros(len(differences)), differences])


def test_predictions_of_settling_come_true() -> None:
    # true differences spread evenly, as the posterior assumes; 15 more cells each
    rng = np.random.default_rng(0)
    predicted, came = np.zeros(2), np.zeros(2)
    for _ in range(1500):
        own = 0.004 * (np.sqrt(0.2) * rng.standard_normal((2, 1)) + np.sqrt(0.8) * rng.standard_normal((2, 20)))
        scores = own + np.array([[0.0], [rng.uniform(-0.02, 0.04)]])
        now, later = pairwise(scores[:, :5], FOLDS), pairwise(scores, FOLDS)
        predicted += chances_to_settle(now, 1, 0, 0.01, 0.95, 20)
        within = float(later.probability_at_most(0.01)[1, 0])
        came += np.array([within >= 0.95, within <= 0.05])
    np.testing.assert_allclose(predicted / 1500, came / 1500, atol=0.03)


def test_a_prediction_worked_out_by_hand() -> None:
    # d = .02 .01 .02 .00 .03: mean .016, S^2 = 130e-6, 4 degrees of freedom; to 20 cells, margin .03:
    # reach = t19(.95) sqrt((1/20 + 1/4) 130e-6) = 1.729133 * 6.244998e-3 = .01079843
    # spread = sqrt(130e-6 (1/5 - 1/20)) = 4.415880e-3; (.03 - .01079843 - .016) / spread = .725013
    pairs = pairwise(exact([0.02, 0.01, 0.02, 0.0, 0.03]), FOLDS)
    passes, fails = chances_to_settle(pairs, 1, 0, 0.03, 0.95, 20)
    assert passes == pytest.approx(0.7457, abs=2e-4)
    assert fails < 0.01


def test_settled_needs_nothing() -> None:
    settled = matrix(exact([0.100, 0.101, 0.099, 0.100, 0.102]))
    assert more_cells_needed(settled, asked(0.01)) == 0
    assert finalist_rows(settled, asked(0.01), repeats=4) == ()


def test_hopeless_needs_more_than_cells() -> None:
    hopeless = matrix(exact([0.1, -0.1, 0.08, -0.07, 0.01]))
    assert more_cells_needed(hopeless, asked(0.01)) is None


def test_where_nothing_would_settle_it_the_highest_scores_are_looked_at_again() -> None:
    rng = np.random.default_rng(3)
    means = np.array([0.70, 0.81, 0.79, 0.60, 0.82, 0.80])
    hopeless = matrix(means[:, None] + 0.002 * rng.standard_normal((6, 1)) + 0.1 * rng.standard_normal((6, 5)))
    highest = np.argsort(-hopeless.scores.mean(axis=1))[:4]
    rows = finalist_rows(hopeless, asked(0.001), repeats=4)
    assert rows == tuple(sorted(highest.tolist()))


def test_nearer_the_margin_needs_more() -> None:
    shape = np.array([0.004, -0.004, 0.003, -0.003, 0.0])
    far, near = (more_cells_needed(matrix(exact(list(shift + shape))), asked(0.01)) for shift in (0.0145, 0.0142))
    assert far is not None
    assert near is not None
    assert 0 < far <= near
    assert far % FOLDS == 0


def test_finalists_are_the_open_trial_and_its_rival_only() -> None:
    rng = np.random.default_rng(1)
    scores = np.array([0.70, 0.8205, 0.83, 0.75])[:, None] + 0.003 * rng.standard_normal((4, 5))
    rows = finalist_rows(matrix(scores), asked(0.01), repeats=4)
    assert rows == (1, 2)
