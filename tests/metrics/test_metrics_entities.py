"""Scores of counts of entities, by hand and against seqeval."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from lora_search.metrics import ENTITY_METRICS, metric_named, scores_of
from lora_search.metrics.entities import COLUMNS
from lora_search.metrics.spans import lenient_spans, part_of, strict_spans

NOBODY = np.zeros(2, dtype=np.int64)


def counts_of(right: list[str], found: list[str]) -> list[float]:
    """What a sentence adds, as the task counts it."""
    columns: list[float] = []
    for read in (lambda parts: strict_spans(parts, "IOB2"), lenient_spans):
        actual, predicted = (read([part_of(tag) for tag in tags]) for tags in (right, found))
        columns += [len(actual & predicted), len(predicted), len(actual)]
    return [*columns, sum(one == other for one, other in zip(right, found, strict=True)), len(right), 0.0]


def test_by_hand() -> None:
    counts = np.array([[1, 2, 3, 2, 4, 3, 7, 10, 5.0], [0, 0, 1, 0, 0, 1, 2, 2, 1.0]], dtype=np.float32)
    assert len(COLUMNS) == counts.shape[1]
    scores = scores_of(ENTITY_METRICS, NOBODY, counts)
    assert scores == pytest.approx(
        {
            "entity_f1": 2 * 1 / (2 + 4),
            "entity_precision": 1 / 2,
            "entity_recall": 1 / 4,
            "entity_f1_lenient": 2 * 2 / (4 + 4),
            "token_accuracy": 9 / 12,
            "token_log_loss": 6 / 12,
        }
    )


def test_no_entity_anywhere_scores_0_and_not_nothing() -> None:
    scores = scores_of(ENTITY_METRICS, NOBODY, np.zeros((2, len(COLUMNS)), dtype=np.float32))
    assert set(scores.values()) == {0.0}


def test_scores_are_those_of_seqeval() -> None:
    draw, tags = random.Random(1), ["O", "O", "B-x", "I-x", "B-y", "I-y"]
    for _ in range(50):
        right = [draw.choices(tags, k=draw.randint(1, 12)) for _ in range(8)]
        found = [[tag if draw.random() < 0.7 else draw.choice(tags) for tag in each] for each in right]
        counts = np.array([counts_of(one, other) for one, other in zip(right, found, strict=True)], dtype=np.float32)
        scores = scores_of(ENTITY_METRICS, np.zeros(8, dtype=np.int64), counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a score is not defined without entities
            strict = {"mode": "strict", "scheme": IOB2}
            assert scores["entity_f1"] == pytest.approx(f1_score(right, found, **strict))
            assert scores["entity_precision"] == pytest.approx(precision_score(right, found, **strict))
            assert scores["entity_recall"] == pytest.approx(recall_score(right, found, **strict))
            assert scores["entity_f1_lenient"] == pytest.approx(f1_score(right, found))


@pytest.mark.parametrize("name", [metric.name for metric in ENTITY_METRICS if metric.greater_is_better])
def test_who_knows_nothing_finds_nothing(name: str) -> None:
    assert metric_named(name).score_of_knowing_nothing(NOBODY) == 0.0
