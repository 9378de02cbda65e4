"""Scores worked out by hand, and scikit-learn's to the last digit."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef

from lora_search.metrics import CLASS_METRICS, METRICS, scores_of


def one_hot(predicted, classes, sure=0.8):
    rest = (1 - sure) / (classes - 1)
    return np.where(np.arange(classes) == np.array(predicted)[:, None], sure, rest).astype(np.float32)


def score_predictions(labels, probabilities):
    return scores_of(CLASS_METRICS, labels, probabilities)


def test_scores_by_hand():
    # truth 0 0 0 1 1 2, predicted 0 0 1 1 2 2: four of six right.
    # F1: class 0: P 2/2, R 2/3 -> 4/5; class 1: P 1/2, R 1/2 -> 1/2; class 2: P 1/2, R 1/1 -> 2/3; mean 59/90
    # Gorodkin's correlation: c s = 4 * 6, sum of p_k t_k = 2*3 + 2*2 + 2*1 = 12,
    # (24 - 12) / sqrt((36 - 12) (36 - 14)) = 12 / sqrt(528)
    labels = np.array([0, 0, 0, 1, 1, 2])
    scores = score_predictions(labels, one_hot([0, 0, 1, 1, 2, 2], 3))
    assert scores == pytest.approx(
        {
            "accuracy": 4 / 6,
            "macro_f1": 59 / 90,
            "matthews_correlation": 12 / math.sqrt(528),
            "log_loss": -(4 * math.log(0.8) + 2 * math.log(0.1)) / 6,
        }
    )


def test_a_class_that_is_neither_there_nor_predicted_counts_as_zero():
    labels = np.array([0, 1, 0, 1])
    assert score_predictions(labels, one_hot([0, 1, 0, 1], 4))["macro_f1"] == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 1]])
def test_predicting_one_class_only_has_no_correlation_and_no_warning(labels):
    scores = score_predictions(np.array(labels), one_hot([0, 0, 0], 2))
    assert scores["matthews_correlation"] == 0.0
    assert scores["accuracy"] == pytest.approx(labels.count(0) / 3)


def test_certainty_about_the_wrong_class_costs_a_finite_loss():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert score_predictions(np.array([0, 1]), probabilities)["log_loss"] == pytest.approx(
        -math.log(1e-7) / 2, rel=1e-6
    )


def test_ties_go_to_the_first_class():
    assert score_predictions(np.array([0, 1]), np.full((2, 2), 0.5, dtype=np.float32))["accuracy"] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learns(classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - (classes > 2), 41)  # one class of several never occurs
    logits = rng.normal(size=(41, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    answers, every = probabilities.argmax(axis=1), np.arange(classes)
    scores = score_predictions(labels, probabilities)
    assert scores["accuracy"] == accuracy_score(labels, answers)
    assert scores["macro_f1"] == f1_score(labels, answers, labels=every, average="macro", zero_division=0.0)
    assert scores["matthews_correlation"] == matthews_corrcoef(labels, answers)
    whole = probabilities.astype(np.float64) / probabilities.sum(axis=1, dtype=np.float64, keepdims=True)
    assert scores["log_loss"] == pytest.approx(log_loss(labels, whole, labels=every), rel=1e-6)


def test_knowing_nothing_by_hand():
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    known = {metric.name: metric.score_of_knowing_nothing(labels) for metric in CLASS_METRICS}
    assert known["accuracy"] == 0.5
    assert known["macro_f1"] == pytest.approx(1 / 3)
    assert known["matthews_correlation"] == 0.0
    assert known["log_loss"] == pytest.approx(-(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)))


def test_nothing_that_ignores_the_texts_scores_more_than_knowing_nothing():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    rng = np.random.default_rng(0)
    for shares in ([0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]):
        drawn = [score_predictions(labels, np.eye(3)[rng.choice(3, 1000, p=shares)]) for _ in range(50)]
        for name in ("accuracy", "macro_f1", "matthews_correlation"):
            mean = np.mean([scores[name] for scores in drawn])
            assert mean <= METRICS[name].score_of_knowing_nothing(labels) + 0.005
