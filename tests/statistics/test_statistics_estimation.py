"""BBC-CV: metrics agree with scikit-learn, the flattery goes away, and groups stay together."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lora_search.errors import ExperimentError, StudyError
from lora_search.statistics import estimation
from lora_search.statistics.estimation import CorrectedScore, corrected_score, pool_predictions

REFERENCE = {
    "accuracy": accuracy_score,
    "macro_f1": lambda true, said: f1_score(true, said, labels=range(4), average="macro", zero_division=0.0),
    "matthews_correlation": matthews_corrcoef,
}


def corrected(answers: np.ndarray, labels: np.ndarray, **arguments: Any) -> CorrectedScore:
    """As ``corrected_score``, of answers (trials, repeats, n) given without any doubt."""
    classes = int(max(answers.max(), labels.max())) + 1
    return corrected_score(np.eye(classes, dtype=np.float32)[answers], labels, **arguments)


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
    result = corrected(predicted, labels, metric=metric, samples=50)
    assert result.winner == int(np.argmax(scores))
    assert result.naive == pytest.approx(max(scores))


@pytest.mark.parametrize("metric", ["macro_f1", "matthews_correlation"])
def test_constant_predictions_are_no_error(metric: str) -> None:
    labels = np.repeat([0, 1], 20)
    predicted = np.zeros((1, 1, 40), dtype=np.int64)
    result = corrected(predicted, labels, metric=metric, samples=50)
    assert result.naive == pytest.approx({"macro_f1": 1 / 3, "matthews_correlation": 0.0}[metric])


def test_the_flattery_goes_away() -> None:
    naive, honest = [], []
    for seed in range(40):
        result = corrected(*study(seed, np.full(20, 0.75)), metric="accuracy", samples=200, seed=seed)
        naive.append(result.naive - 0.75)
        honest.append(result.score - 0.75)
    # 20 equal trials of 300 examples: E[max] is 1.87 standard errors of 2.5 points above the truth
    assert np.mean(naive) == pytest.approx(0.0467, abs=0.01)
    assert np.mean(honest) == pytest.approx(0.0, abs=0.01)


def test_one_trial_needs_no_correction_and_gets_a_binomial_interval() -> None:
    predicted, labels = study(1, np.array([0.8]), examples=400)
    result = corrected(predicted, labels, metric="accuracy", samples=4000)
    assert result.score == pytest.approx(result.naive, abs=0.003)
    half = (result.interval[1] - result.interval[0]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(result.naive * (1 - result.naive) / 400), rel=0.1)


def test_groups_make_the_interval_honest() -> None:
    # 40 groups of 10 copies hold the information of 40 examples
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    right = np.repeat(rng.random((1, 1, 40)) < 0.7, 10, axis=2)
    predicted = np.where(right, labels, 1 - labels)
    alone = corrected(predicted, labels, metric="accuracy", samples=2000)
    grouped = corrected(predicted, labels, metric="accuracy", groups=np.repeat(np.arange(40), 10), samples=2000)
    widths = [result.interval[1] - result.interval[0] for result in (alone, grouped)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_corrected_score_is_that_of_the_recommended_trial() -> None:
    predicted, labels = study(3, np.array([0.70, 0.80, 0.81]), examples=2000)
    own = (predicted == labels).mean(axis=2)[:, 0]
    sizes = np.array([1.0, 2.0, 8.0])
    assert corrected(predicted, labels, metric="accuracy", samples=20).winner == int(own.argmax())
    for row in (1, 2):
        result = corrected(predicted, labels, metric="accuracy", parameters=sizes, recommended=row, samples=400)
        assert result.winner == row
        assert result.naive == pytest.approx(own[row])
        assert result.score == pytest.approx(own[row], abs=0.01)
        assert result.interval[0] < result.score < result.interval[1]


def test_the_same_seed_gives_the_same_numbers() -> None:
    predicted, labels = study(4, np.full(5, 0.7))
    first = corrected(predicted, labels, metric="accuracy", samples=100, seed=9)
    assert first == corrected(predicted, labels, metric="accuracy", samples=100, seed=9)
    assert first != corrected(predicted, labels, metric="accuracy", samples=100, seed=10)


def test_the_interval_keeps_within_the_metrics_bounds() -> None:
    predicted, labels = study(6, np.array([0.99]), examples=100)
    assert corrected(predicted, labels, metric="accuracy", samples=200).interval[1] == 1.0


def test_of_a_loss_the_least_is_the_best_and_its_flattery_is_too_low() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 300)
    right = rng.beta(3, 2, (20, 1, 300)).astype(np.float32)  # 20 trials as good as each other
    predicted = np.stack([np.where(labels == 0, right, 1 - right), np.where(labels == 1, right, 1 - right)], axis=-1)
    losses = -np.log(right).mean(axis=(1, 2))
    result = corrected_score(predicted, labels, metric="log_loss", samples=200)
    assert result.winner == losses.argmin()
    assert result.naive == pytest.approx(losses.min())
    assert result.naive < result.score == pytest.approx(losses.mean(), abs=0.01)
    assert 0.0 <= result.interval[0] < result.score < result.interval[1]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
@pytest.mark.parametrize("grouped", [False, True])
def test_parts_made_one_at_a_time_come_to_what_all_at_once_do(
    metric: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    labels, groups = rng.integers(0, 3, 120), rng.integers(0, 40, 120) if grouped else None
    predicted = rng.dirichlet(np.ones(3), (6, 2, 120)).astype(np.float32)
    whole = corrected_score(predicted, labels, metric=metric, groups=groups, samples=100)
    monkeypatch.setattr(estimation, "_MOST_DRAWN", 700)
    monkeypatch.setattr(estimation, "_MOST_COLUMNS", 20)
    parts = corrected_score(predicted, labels, metric=metric, groups=groups, samples=100)
    assert (parts.winner, parts.naive) == (whole.winner, whole.naive)
    assert (parts.score, *parts.interval) == pytest.approx((whole.score, *whole.interval), rel=1e-12)


def test_memory_does_not_grow_with_examples_times_samples() -> None:
    predicted, labels = study(9, np.full(8, 0.8), examples=20_000)
    certain = np.eye(2, dtype=np.float32)[predicted]
    tracemalloc.start()
    corrected_score(certain, labels, metric="accuracy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * 2**20  # of which 40 MiB say how often each sample has each example


def test_an_unknown_metric_is_named() -> None:
    predicted, labels = study(5, np.array([0.7]))
    with pytest.raises(ExperimentError, match=r"must be one of accuracy, macro_f1, .* got f2"):
        corrected(predicted, labels, metric="f2")


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
    assert pooled.predicted.argmax(axis=-1).tolist() == [[[1, 0, 1]], [[1, 0, 1]]]
    assert pool_predictions(_frame(rows), [3]).predicted.shape == (1, 2, 3, 2)


def test_predictions_that_do_not_cover_the_same_examples_are_refused() -> None:
    with pytest.raises(StudyError, match="must cover the same examples"):
        pool_predictions(_frame([(0, 0, 0, 1, 0.2, 0.8), (1, 0, 0, 2, 0.2, 0.8)]), [0, 1])
