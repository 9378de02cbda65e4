"""Scores worked out by hand."""

import math

import numpy as np
import pytest

from lora_search.training import score_predictions


def one_hot(predicted, classes, sure=0.8):
    rest = (1 - sure) / (classes - 1)
    return np.where(np.arange(classes) == np.array(predicted)[:, None], sure, rest).astype(np.float32)


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
