"""Several labels per example: by hand, as scikit-learn has them, and from sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from lora_search.metrics import LABEL_METRICS, METRICS, scores_of, total

every_metric = pytest.mark.parametrize("metric", LABEL_METRICS, ids=lambda metric: metric.name)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels that examples have, some of them never or always, and probabilities."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 30)), draw(st.integers(2, 6))
    truth = (rng.random(shape) < rng.choice([0.0, 0.2, 0.7, 1.0], shape[1])).astype(np.uint8)
    return truth, rng.random(shape).astype(np.float32)


def test_by_hand() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=np.uint8)
    predicted = np.array([[0.9, 0.5, 0.1], [0.5, 0.2, 0.1], [0.4, 0.4, 0.4]], dtype=np.float32)
    scores = scores_of(LABEL_METRICS, truth, predicted)
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (3 + 3)), "one half is enough"
    assert scores["macro_f1"] == pytest.approx((1.0 + 0.0 + 0.0) / 3), "a label that is nowhere counts"
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    right = [0.9, 0.5, 0.9, 0.5, 0.2, 0.9, 0.6, 0.6, 0.6]
    assert scores["log_loss"] == pytest.approx(-np.log(right).mean(), rel=1e-6)


def test_knowing_nothing_answers_with_the_shares_by_hand() -> None:
    truth = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.uint8)
    nothing = {metric.name: metric.score_of_knowing_nothing(truth) for metric in LABEL_METRICS}
    assert nothing["micro_f1"] == pytest.approx(2 * 3 / (4 + 4)), "the first label is answered, which most have"
    assert nothing["macro_f1"] == pytest.approx((2 * 3 / (4 + 3) + 0) / 2)
    assert nothing["subset_accuracy"] == pytest.approx(2 / 4)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert nothing["log_loss"] == pytest.approx(entropy), "of both labels alike"


@given(made=answers())
@settings(max_examples=40)
def test_as_scikit_learn_has_them(made: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = made
    answered = predicted >= 0.5
    scores = scores_of(LABEL_METRICS, truth, predicted)
    assert scores["micro_f1"] == pytest.approx(f1_score(truth, answered, average="micro", zero_division=0))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, answered, average="macro", zero_division=0))
    assert scores["subset_accuracy"] == pytest.approx(accuracy_score(truth, answered))
    flat = log_loss(truth.ravel(), predicted.ravel().astype(float), labels=[0, 1])
    assert scores["log_loss"] == pytest.approx(flat, rel=1e-3)


@every_metric
@given(made=answers(), seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_a_weighted_score_is_that_of_the_examples_repeated(metric, made, seed) -> None:
    truth, predicted = made
    weights = np.random.default_rng(seed).integers(0, 4, len(truth))
    weights[0] += 1
    chosen = np.repeat(np.arange(len(truth)), weights)
    alone = metric.score(total(metric.counts(truth[chosen], predicted[chosen])))
    together = metric.score((weights @ metric.counts(truth, predicted)).astype(np.float64))
    assert float(together) == pytest.approx(float(alone), abs=1e-9)
    low, high = metric.bounds
    assert low <= float(alone) <= high
    assert low <= metric.score_of_knowing_nothing(truth) <= high


def test_names_that_classes_have_too_are_the_same_metrics() -> None:
    assert [METRICS[metric.name] is metric for metric in LABEL_METRICS] == [True] * 4
