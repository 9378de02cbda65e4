"""Trials against the best, whichever that is."""

from __future__ import annotations

import numpy as np
import pytest

from lora_search.statistics.comparison import Posterior, pairwise
from lora_search.statistics.standing import (
    NOT_WORSE,
    OPEN,
    WORSE,
    recommend,
    required_probability,
    shortfall_intervals,
    standing,
)


def _scores(means: list[float], noise: float, cells: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = 0.03 * rng.standard_normal(cells)
    return np.array(means)[:, None] + shared + noise * rng.standard_normal((len(means), cells))


def test_three_kinds_of_trial() -> None:
    result = standing(pairwise(_scores([0.70, 0.80, 0.7999, 0.79], 0.001), 5), margin=0.01, confidence=0.95)
    assert result.status.tolist() == [WORSE, NOT_WORSE, NOT_WORSE, OPEN]
    assert int(result.against[0]) in (1, 2)
    assert result.probability_not_worse[1] > 0.99
    assert result.probability_not_worse[0] < 0.01


def test_scoring_best_once_is_not_enough() -> None:
    # two trials whose difference is drowned in noise: neither is shown to be within the margin of the other
    result = standing(pairwise(_scores([0.8, 0.8], 0.03), 5), margin=0.005, confidence=0.95)
    assert result.status.tolist() == [OPEN, OPEN]


def test_two_trials_are_the_plain_comparison() -> None:
    scores = _scores([0.8, 0.802], 0.003)
    pairs = pairwise(scores, 5)
    result = standing(pairs, margin=0.01, confidence=0.95)
    assert result.probability_not_worse[0] == pytest.approx(float(pairs.probability_at_most(0.01)[1, 0]), rel=1e-6)


def test_interval_and_status_say_the_same() -> None:
    scores = _scores([0.70, 0.80, 0.7995, 0.79, 0.785], 0.003)
    pairs = pairwise(scores, 5)
    result = standing(pairs, margin=0.01, confidence=0.95)
    low, high = shortfall_intervals(pairs, 0.95)
    np.testing.assert_array_equal(high <= 0.01, result.status == NOT_WORSE)
    np.testing.assert_array_equal(low > 0.01, result.status == WORSE)


def test_one_trial_is_not_worse_than_nothing() -> None:
    result = standing(pairwise(np.array([[0.8, 0.81]]), 5), margin=0.01, confidence=0.95)
    assert result.status.tolist() == [NOT_WORSE]


def test_recommended_is_smallest_then_best_then_fastest() -> None:
    status = np.array([WORSE, NOT_WORSE, NOT_WORSE, NOT_WORSE, NOT_WORSE], dtype=np.int8)
    parameters = np.array([1.0, 2.0, 2.0, 2.0, 4.0])
    scores = np.array([0.5, 0.79, 0.80, 0.80, 0.81])
    assert recommend(status, scores, parameters, np.array([1.0, 1.0, 9.0, 5.0, 1.0])) == (3, 4, True)


def test_an_open_smaller_trial_keeps_the_verdict_open() -> None:
    status = np.array([OPEN, NOT_WORSE, OPEN], dtype=np.int8)
    scores, seconds = np.array([0.79, 0.80, 0.80]), np.ones(3)
    assert recommend(status, scores, np.array([1.0, 2.0, 4.0]), seconds) == (1, 1, False)
    assert recommend(status, scores, np.array([4.0, 2.0, 4.0]), seconds) == (1, 1, True)
    nothing = np.zeros(3, dtype=np.int8)
    assert recommend(nothing, scores, np.array([1.0, 2.0, 4.0]), seconds) == (1, 1, False)


def test_more_looks_need_more_evidence() -> None:
    pairs = pairwise(_scores([0.8, 0.8005], 0.004), 5)
    once, often = (standing(pairs, margin=0.01, confidence=0.95, looks=looks) for looks in (1, 4))
    # four looks double the chance of an error
    np.testing.assert_allclose(1 - often.probability_not_worse, 2 * (1 - once.probability_not_worse))
    assert required_probability(0.95, 1) == pytest.approx(0.95)
    assert required_probability(0.95, 4) == pytest.approx(1 - 0.025)
    one, four = (shortfall_intervals(pairs, 0.95, looks) for looks in (1, 4))
    assert four[0][0] < one[0][0] < one[1][0] < four[1][0]


def test_the_looks_of_repeated_studies_are_paid_for() -> None:
    # true shortfall at the margin, decided at the first of four looks that says so: about 5 % (8.6 to 9.5 % unpaid)
    rng = np.random.default_rng(8)
    studies, folds = 4000, 5
    shared = np.sqrt(1 / folds) * rng.standard_normal((studies, 2, 1))
    noise = 0.005 * (shared + np.sqrt(1 - 1 / folds) * rng.standard_normal((studies, 2, 4 * folds)))
    wrong = np.zeros(studies, dtype=bool)
    for looks in range(1, 5):
        scores = noise[..., : looks * folds] - np.array([0.01, 0.0])[:, None]
        result = standing(pairwise(scores, folds), margin=0.01, confidence=0.95, looks=4)
        wrong |= result.status[:, 0] == NOT_WORSE
    assert wrong.mean() < 0.06
    assert wrong.mean() > 0.03


def test_the_best_taken_for_granted_would_be_wrong_too_often() -> None:
    # a small trial truly worse by a hair more than the margin, noise as large as the margin
    rng = np.random.default_rng(9)
    studies, folds = 4000, 5
    noise = np.sqrt(1 / folds) * rng.standard_normal((studies, 2, 1))
    noise = 0.01 * (noise + np.sqrt(1 - 1 / folds) * rng.standard_normal((studies, 2, folds)))
    scores = noise - np.array([0.01001, 0.0])[:, None]
    passes = standing(pairwise(scores, folds), margin=0.01, confidence=0.95).status[:, 0] == NOT_WORSE
    on_top = scores.mean(axis=-1).argmax(axis=-1) == 0
    assert passes.mean() == pytest.approx(0.05, abs=0.012)
    assert (passes | on_top).mean() == pytest.approx(0.14, abs=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_leaving_out_pairs_that_cannot_decide_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 40, 30)
    scale = rng.choice([0.0, 1e-3, 3e-3, 1e-2, np.inf], shape)
    freedom = rng.choice([1.0, 2.5, 4.0, 40.0, 1e6], shape)
    mean = rng.choice(rng.normal(0, 0.01, 50), shape)
    pairs = Posterior(mean, scale, freedom, scale**2, np.full(shape, 5), scale**2 / 4)
    themselves = np.eye(40, 30, dtype=bool)
    every = np.where(themselves, np.inf, pairs.probability_at_most(0.005))
    ahead = np.where(every == every.min(axis=-2, keepdims=True), mean, -np.inf)
    result = standing(pairs, 0.005, 0.95)
    np.testing.assert_array_equal(result.probability_not_worse, np.maximum(1.0 - (1.0 - every.min(axis=-2)), 0.0))
    np.testing.assert_array_equal(result.against, ahead.argmax(axis=-2))
