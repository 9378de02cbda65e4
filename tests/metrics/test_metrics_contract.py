"""What every metric promises, whatever it measures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.errors import ExperimentError
from lora_search.metrics import (
    CLASS_METRICS,
    COMPLETION_METRICS,
    LABEL_METRICS,
    METRICS,
    NUMBER_METRICS,
    VERDICT_METRICS,
    Metric,
    direction,
    metric_named,
    scores_of,
    total,
)

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@st.composite
def seeds(draw: st.DrawFn) -> tuple[np.random.Generator, int, int]:
    """A generator, and how many examples and classes to make."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(1, 30)), draw(st.integers(2, 6))


def predictions(metric: Metric, made: tuple[np.random.Generator, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n,) and their probabilities (n, classes), counts of entities (n, 9) or sums over tokens (n, 3); numbers
    (n,) and answers (n, 1); labels (n, labels) and their probabilities."""
    rng, examples, classes = made
    truth = rng.integers(0, classes, examples)
    if metric in CLASS_METRICS:
        return truth, rng.dirichlet(np.ones(classes), examples).astype(np.float32)
    if metric in COMPLETION_METRICS:
        tokens = rng.integers(1, 9, examples)
        sums = [rng.random(examples) * 9, tokens, rng.integers(0, tokens + 1)]
        return truth, np.stack(sums, axis=1).astype(np.float32)
    if metric in LABEL_METRICS:
        return rng.integers(0, 2, (examples, classes)), rng.random((examples, classes)).astype(np.float32)
    if metric in NUMBER_METRICS:
        numbers = np.round(rng.normal(size=examples) * classes)
        return numbers, (numbers + rng.normal(size=examples)).astype(np.float32)[:, None]
    found, actual = rng.integers(0, 5, (2, examples, 2))
    hits = rng.integers(0, np.minimum(found, actual) + 1)
    entities = np.stack([hits, found, actual], axis=2).reshape(examples, 6)
    words = rng.integers(1, 9, examples)
    tags = np.stack([rng.integers(0, words + 1), words, rng.random(examples) * 9], axis=1)
    return truth, np.concatenate([entities, tags], axis=1).astype(np.float32)


@every_metric
@given(made=seeds())
def test_scores_keep_within_their_bounds(metric: Metric, made: tuple[np.random.Generator, int, int]) -> None:
    data = predictions(metric, made)
    low, high = metric.bounds
    score = float(metric.score(total(metric.counts(*data))))
    assert low <= score <= high
    assert low <= metric.score_of_knowing_nothing(data[0]) <= high


@pytest.mark.parametrize("metric", [each for each in METRICS.values() if each.name != "spearman"], ids=lambda m: m.name)
@given(made=seeds(), seed=st.integers(0, 1000))
def test_a_weighted_score_is_that_of_the_examples_repeated(
    metric: Metric, made: tuple[np.random.Generator, int, int], seed: int
) -> None:
    """Of ranks it is so to first order: see the tests of numbers."""
    truth, predicted = predictions(metric, made)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(truth)))
    weights[:, 0] += 1
    together = metric.score((weights @ metric.counts(truth, predicted)).astype(np.float64))
    for row, score in zip(weights, together, strict=True):
        chosen = np.repeat(np.arange(len(truth)), row)
        alone = metric.score(total(metric.counts(truth[chosen], predicted[chosen])))
        assert score == pytest.approx(float(alone), abs=1e-9)


@every_metric
@given(made=seeds())
def test_a_mean_over_examples_is_the_mean_of_their_scores(
    metric: Metric, made: tuple[np.random.Generator, int, int]
) -> None:
    counts = metric.counts(*predictions(metric, made))
    own = metric.score(counts.astype(np.float64))
    if metric.mean_over_examples:
        assert own.mean() == pytest.approx(float(metric.score(total(counts))))


@every_metric
def test_better_answers_score_better(metric: Metric) -> None:
    truth = np.array([0, 1, 2, 0, 1, 2])
    sure, unsure = np.full((6, 3), 0.1), np.full((6, 3), 0.3)
    sure[np.arange(6), truth], unsure[np.arange(6), (truth + 1) % 3] = 0.8, 0.4
    if metric in COMPLETION_METRICS:
        sure, unsure = (np.tile([4 - n, 4, n], (6, 1)) for n in (3, 1))
    elif metric in LABEL_METRICS and metric not in CLASS_METRICS:
        truth, sure, unsure = np.eye(3, dtype=int)[truth], sure, np.roll(sure, 1, axis=1)
    elif metric in NUMBER_METRICS:
        sure, unsure = (truth[:, None] + 0.1, np.roll(truth, 1)[:, None])
    elif metric not in CLASS_METRICS:
        sure, unsure = (np.tile([n, 3, 3, n, 3, 3, n, 4, 4 - n], (6, 1)) for n in (3, 1))
    good, bad = (scores_of([metric], truth, predicted)[metric.name] for predicted in (sure, unsure))
    assert (good > bad) == metric.greater_is_better
    assert direction(metric.name) * good > direction(metric.name) * bad


def test_scores_decide_a_verdict_and_two_losses() -> None:
    assert VERDICT_METRICS == (
        "accuracy",
        "macro_f1",
        "matthews_correlation",
        "micro_f1",
        "subset_accuracy",
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "entity_f1_lenient",
        "token_accuracy",
        "completion_loss",
        "completion_accuracy",
        "pearson",
        "spearman",
        "rmse",
    )
    with pytest.raises(ExperimentError, match=r"must be one of .*log_loss, .*got f2"):
        metric_named("f2")
