"""Errors and correlations of numbers: by hand, as SciPy and scikit-learn have them; what an example adds to ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from lora_search.metrics import METRICS, NUMBER_METRICS, scores_of, total
from lora_search.statistics.examples import contributions

SPEARMAN = METRICS["spearman"]


@st.composite
def pairs(draw: st.DrawFn, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Numbers with ties, and answers that follow them more or less, some tied too."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(least, 60))
    truth = np.round(rng.normal(size=count) * draw(st.sampled_from([1, 3, 100])))
    answers = truth + rng.normal(size=count) * draw(st.sampled_from([0.1, 2.0]))
    if draw(st.booleans()):
        answers = np.round(answers)
    shift = draw(st.sampled_from([0.0, 50.0]))
    return truth + shift, (answers + shift).astype(np.float32)[:, None]


def test_by_hand() -> None:
    truth, answers = np.array([1.0, 2.0, 4.0]), np.array([[1.0], [4.0], [3.0]])
    scores = scores_of(NUMBER_METRICS, truth, answers)
    assert scores["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert scores["spearman"] == pytest.approx(0.5)
    # deviations -4/3, -1/3, 5/3 and -5/3, 4/3, 1/3
    assert scores["pearson"] == pytest.approx((20 - 4 + 5) / np.sqrt(42 * 42))
    assert METRICS["rmse"].score_of_knowing_nothing(truth) == pytest.approx(np.sqrt(14 / 9))


@given(made=pairs())
@settings(max_examples=50)
def test_as_scipy_and_scikit_learn_have_them(made: tuple[np.ndarray, np.ndarray]) -> None:
    truth, answers = made
    scores = scores_of(NUMBER_METRICS, truth, answers)
    assert scores["rmse"] == pytest.approx(root_mean_squared_error(truth, answers[:, 0]))
    if np.ptp(truth) == 0 or np.ptp(answers) == 0:
        assert scores["pearson"] == scores["spearman"] == 0.0
        return
    assert scores["pearson"] == pytest.approx(stats.pearsonr(answers[:, 0].astype(float), truth)[0], abs=1e-7)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(answers[:, 0], truth)[0], abs=1e-9)


@given(made=pairs(least=30))
@settings(max_examples=12)
def test_what_an_example_adds_to_a_rank_correlation_is_what_it_takes_when_left_out(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    """The jackknife by leaving each out and ranking anew, which the counts give to first order."""
    truth, answers = made
    rng = np.random.default_rng(len(truth))
    # values that are all different leave no doubt of a tie broken or made
    truth, answers = truth + rng.random(len(truth)) / 10, answers + rng.random(answers.shape) / 10
    count, whole = len(truth), stats.spearmanr(answers[:, 0], truth)[0]
    without = [stats.spearmanr(np.delete(answers, i), np.delete(truth, i))[0] for i in range(count)]
    exact = whole + (count - 1) * (whole - np.array(without))
    found = contributions(SPEARMAN.counts(truth, answers), SPEARMAN.score)
    assert found.mean() == pytest.approx(whole)
    assert found.std() == pytest.approx(exact.std(), rel=0.15, abs=0.02)


def test_a_bootstrap_of_counts_scatters_as_one_of_examples() -> None:
    """Weights that are far from one another move the linearised score about as the ranks of the sample do."""
    rng = np.random.default_rng(0)
    truth = np.round(rng.normal(size=150) * 2) / 2
    answers = (truth + rng.normal(size=150))[:, None]
    counts, drawn, linear = SPEARMAN.counts(truth, answers), [], []
    for _ in range(300):
        weights = np.bincount(rng.integers(0, 150, 150), minlength=150)
        chosen = np.repeat(np.arange(150), weights)
        drawn.append(float(SPEARMAN.score(total(SPEARMAN.counts(truth[chosen], answers[chosen])))))
        linear.append(float(SPEARMAN.score(weights @ counts)))
    assert np.std(linear) == pytest.approx(np.std(drawn), rel=0.05)
    assert np.corrcoef(drawn, linear)[0, 1] > 0.98
