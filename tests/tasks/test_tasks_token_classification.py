"""Token classification: numbers by hand."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_search.data.tagged import TaggedDataset, TagReport
from lora_search.data.tagged_encoding import EncodedSentences
from lora_search.errors import ExperimentError
from lora_search.metrics.entities import COLUMNS
from lora_search.spec import Experiment
from lora_search.tasks import check_keys, task_of
from lora_search.tasks.token_classification import TagObjective

TAGS = ("O", "B-x", "I-x")
NONE = -100


@pytest.fixture
def data() -> EncodedSentences:
    """A sentence of three words in two rows, of which the last word has no token; and one of one word."""
    report = TagReport("hand", 2, {}, None, {"x": 1, "no entity": 1}, None, None, 0, 0, ())
    return EncodedSentences(
        input_ids=tuple(np.array([5, 6, 7]) for _ in range(3)),
        token_type_ids=None,
        labels=np.array([0, 1]),
        label_names=TAGS,
        lengths=np.array([3, 3, 3]),
        groups=np.arange(2),
        report=report,
        fingerprint="hand",
        targets=np.array([[1, NONE, NONE], [NONE, 2, NONE], [NONE, 0, NONE]]),
        first_rows=np.array([0, 2, 3]),
        words=(("a", "b"), ("b", "c"), ("d",)),
        tags=(np.array([1, 2, 0]), np.array([0])),
        seen=(np.array([0, 1]), np.array([0])),
        scheme="IOB2",
    )


def logits_of(*rows: list[int]) -> torch.Tensor:
    """Rows in which these tags are three times as probable as each other."""
    logits = torch.zeros(len(rows), len(rows[0]), len(TAGS))
    for row, tags in enumerate(rows):
        for token, tag in enumerate(tags):
            logits[row, token, tag] = math.log(3.0)
    return logits


def objective_of(data: EncodedSentences) -> TagObjective:
    objective = task_of("token-classification").objective(data)
    assert isinstance(objective, TagObjective)
    return objective


def test_the_loss_is_the_sum_over_the_labelled_tokens_of_a_row(data: EncodedSentences) -> None:
    objective = objective_of(data)
    losses = objective.losses(logits_of([1, 0], [0, 0]).bfloat16(), torch.from_numpy(objective.targets[:2]))
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([math.log(5 / 3), math.log(5.0)], rel=1e-2)
    assert objective.units.tolist() == [2, 1]
    assert objective.rows(np.array([1, 0])).tolist() == [2, 0, 1]


def test_a_prediction_is_what_a_sentence_adds_to_every_count(data: EncodedSentences) -> None:
    objective = objective_of(data)
    rows = objective.rows(np.array([1, 0]))
    answers = objective.answers(logits_of([0, 2], [1, 0], [0, 2]), torch.from_numpy(objective.targets[rows]))
    counts = objective.predictions(np.array([1, 0]), list(answers.numpy()))
    assert counts.dtype == np.float32
    assert counts.shape == (2, len(COLUMNS))
    # I-x after the beginning is no entity, and one where it is read leniently
    assert counts[0].tolist() == pytest.approx([0, 0, 0, 0, 1, 0, 0, 1, math.log(5.0)])
    assert counts[1].tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 2, 2, 2 * math.log(5 / 3)])
    assert objective.predictions(np.empty(0, dtype=np.int64), []).shape == (0, len(COLUMNS))


def test_scores_are_those_of_the_examples_asked_about(data: EncodedSentences) -> None:
    objective = objective_of(data)
    counts = np.array([[1, 2, 1, 1, 2, 1, 1, 2, 1.0]], dtype=np.float32)
    scores = objective.scores(np.array([0]), counts)
    assert scores["entity_f1"] == pytest.approx(2 / 3)
    assert scores["token_log_loss"] == 0.5
    nothing = objective.scores(np.empty(0, dtype=np.int64), np.empty((0, 9), dtype=np.float32))
    assert all(math.isnan(score) for score in nothing.values())


def dataset_of(labels: list[int], groups: list[int]) -> TaggedDataset:
    count = len(labels)
    return TaggedDataset(
        texts=tuple(f"w{n}" for n in range(count)),
        pairs=None,
        labels=np.array(labels),
        label_names=TAGS,
        groups=np.array(groups),
        rows=np.arange(1, count + 1),
        report=TagReport("hand", count, {}, None, dict(Counter(map(str, labels))), None, None, 0, 0, ()),
        fingerprint="hand",
        strata=("x", "no entity"),
    )


def test_folds_are_stratified_by_entity_types() -> None:
    labels = [0] * 20 + [1] * 40 + [2, 3, 4] * 4  # the last three are rare, and one together
    splits = task_of("token-classification").split(dataset_of(labels, list(range(72))), folds=4, holdout=0.0, seed=0)
    for fold in range(4):
        counts = np.bincount(np.array(labels)[splits.fold(0, fold).evaluate], minlength=5)
        assert [counts[0], counts[1], counts[2:].sum()] == [5, 10, 3]


def test_a_type_in_one_document_does_not_stand_in_the_way_of_folds() -> None:
    labels, groups = [0] * 20 + [1] * 40, [0] * 20 + list(range(1, 41))
    splits = task_of("token-classification").split(dataset_of(labels, groups), folds=2, holdout=0.0, seed=0)
    parts = [set(splits.fold(0, fold).evaluate.tolist()) for fold in range(2)]
    assert any(set(range(20)) <= part for part in parts)


def experiment(**data: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "keys",
            "model": {"base": "a/b", "task": data.pop("task", "token-classification")},
            "data": {"train": "data.jsonl", **{k: v for k, v in data.items() if k != "metric"}},
            "verdict": {"metric": data.get("metric", "entity_f1")},
        }
    )


def test_the_keys_of_a_task_are_its_own() -> None:
    words, texts = task_of("token-classification"), task_of("text-classification")
    check_keys(experiment(tokens="words", tags="ner", scheme="IOB2"), words)
    check_keys(experiment(task="text-classification", text="quote", metric="accuracy"), texts)
    with pytest.raises(ExperimentError) as caught:
        check_keys(experiment(label="ner", metric="macro_f1"), words)
    assert caught.value.mistakes == (
        "data.label: must be left out for token-classification, got 'ner'",
        "verdict.metric: must be entity_f1, entity_precision, entity_recall, entity_f1_lenient or token_accuracy for"
        " token-classification, got 'macro_f1'",
    )
    with pytest.raises(ExperimentError) as caught:
        check_keys(experiment(task="text-classification", tags="ner"), texts)
    assert caught.value.mistakes == (
        "data.tags: must be left out for text-classification, got 'ner'",
        "verdict.metric: must be accuracy, macro_f1 or matthews_correlation for text-classification, got 'entity_f1'",
    )


def test_sentences_know_their_rows(data: EncodedSentences) -> None:
    assert replace(data).examples_of_rows.tolist() == [0, 0, 1]
    assert len(data) == 2
