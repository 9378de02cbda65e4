"""BBC-CV: metrics agree with scikit-learn, the flattery goes away, and groups stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lora_search.errors import StudyError
from lora_search.statistics.estimation import corrected_score, pool_predictions

REFERENCE = {
    "accuracy": accuracy_score,
    "macro_f1": lambda true, said: f1_score(true, said, average="macro"),
    "matthews_correlation": matthews_corrcoef,
}


def study(seed: int, quality: np.ndarray, examples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Two-label predictions of trials that are right with these probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, examples)
    right = rng.random((len(quality), 1, examples)) < quality[:, None, None]
    return np.where(right, labels, 1 - labels), labels


@pytest.mark.parametrize("metric", list(REFERENCE))
def test_naive_scores_are_scikit_learns(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    predicted = np.where(rng.random((3, 2, 200)) < 0.6, labels, rng.integers(0, 4, (3, 2, 200)))
    scores = [np.mean([REFERENCE[metric](labels, repeat) for repeat in trial]) for trial in predicted]
    result = corrected_score(predicted, labels, metric=metric, samples=50)
    assert result.winner == int(np.argmax(scores))
    assert result.naive == pytest.approx(max(scores))


@pytest.mark.parametrize("metric", ["macro_f1", "matthews_correlation"])
def test_constant_predictions_are_no_error(metric: str) -> None:
    labels = np.repeat([0, 1], 20)
    predicted = np.zeros((1, 1, 40), dtype=np.int64)
    result = corrected_score(predicted, labels, metric=metric, samples=50)
    assert result.naive == pytest.approx({"macro_f1": 1 / 3, "matthews_correlation": 0.0}[metric])


def test_the_flattery_goes_away() -> None:
    naive, corrected = [], []
    for seed in range(40):
        result = corrected_score(*study(seed, np.full(20, 0.75)), metric="accuracy", samples=200, seed=seed)
        naive.append(result.naive - 0.75)
        corrected.append(result.score - 0.75)
    # 20 equal trials of 300 examples: E[max] is 1.87 standard errors of 2.5 points above the truth
    assert np.mean(naive) == pytest.approx(0.0467, abs=0.01)
    assert np.mean(corrected) == pytest.approx(0.0, abs=0.01)


def test_one_trial_needs_no_correction_and_gets_a_binomial_interval() -> None:
    predicted, labels = study(1, np.array([0.8]), examples=400)
    result = corrected_score(predicted, labels, metric="accuracy", samples=4000)
    assert result.score == pytest.approx(result.naive, abs=0.003)
    half = (result.interval[1] - result.interval[0]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(result.naive * (1 - result.naive) / 400), rel=0.1)


def test_groups_make_the_interval_honest() -> None:
    # 40 groups of 10 copies hold the information of 40 examples
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    right = np.repeat(rng.random((1, 1, 40)) < 0.7, 10, axis=2)
    predicted = np.where(right, labels, 1 - labels)
    alone = corrected_score(predicted, labels, metric="accuracy", samples=2000)
    grouped = corrected_score(predicted, labels, metric="accuracy", groups=np.repeat(np.arange(40), 10), samples=2000)
    widths = [result.interval[1] - result.interval[0] for result in (alone, grouped)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_corrected_score_is_that_of_the_recommended_trial() -> None:
    predicted, labels = study(3, np.array([0.70, 0.80, 0.81]), examples=2000)
    own = (predicted == labels).mean(axis=2)[:, 0]
    sizes = np.array([1.0, 2.0, 8.0])
    assert corrected_score(predicted, labels, metric="accuracy", samples=20).winner == int(own.argmax())
    for row in (1, 2):
        result = corrected_score(predicted, labels, metric="accuracy", parameters=sizes, recommended=row, samples=400)
        assert result.winner == row
        assert result.naive == pytest.approx(own[row])
        assert result.score == pytest.approx(own[row], abs=0.01)
        assert result.interval[0] < result.score < result.interval[1]


def test_the_same_seed_gives_the_same_numbers() -> None:
    predicted, labels = study(4, np.full(5, 0.7))
    first = corrected_score(predicted, labels, metric="accuracy", samples=100, seed=9)
    assert first == corrected_score(predicted, labels, metric="accuracy", samples=100, seed=9)
    assert first != corrected_score(predicted, labels, metric="accuracy", samples=100, seed=10)


def test_an_unknown_metric_is_named() -> None:
    predicted, labels = study(5, np.array([0.7]))
    with pytest.raises(StudyError, match="must be one of accuracy, macro_f1, matthews_correlation, got f2"):
        corrected_score(predicted, labels, metric="f2")


def _frame(rows: list[tuple[int, int, int, int, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["trial", "repeat", "fold", "example", "p0", "p1"])


def test_predictions_are_pooled_over_folds_and_common_repeats() -> None:
    rows = [
        (trial, repeat, example % 2, example, 1.0 - (example + trial) % 2, float((example + trial) % 2))
        for trial in (3, 7)
        for repeat in (0, 1)
        for example in (10, 11, 14)
        if (trial, repeat) != (7, 1)
    ]
    pooled = pool_predictions(_frame(rows), [7, 3])
    assert pooled.examples.tolist() == [10, 11, 14]
    assert pooled.predicted.tolist() == [[[1, 0, 1]], [[1, 0, 1]]]
    assert pool_predictions(_frame(rows), [3]).predicted.shape == (1, 2, 3)


def test_predictions_that_do_not_cover_the_same_examples_are_refused() -> None:
    with pytest.raises(StudyError, match="must cover the same examples"):
        pool_predictions(_frame([(0, 0, 0, 1, 0.2, 0.8), (1, 0, 0, 2, 0.2, 0.8)]), [0, 1])
