"""Text classification: numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lora_search.data import EncodedExamples
from lora_search.data.report import DataReport
from lora_search.tasks import Objective, task_of

LABELS = ("no", "yes")


@pytest.fixture
def objective() -> Objective:
    labels = np.array([0, 1, 1])
    ids = tuple(np.array([1, 2]) for _ in labels)
    report = DataReport("hand", 3, {}, None, {"no": 1, "yes": 2}, None, None, 0, 0, ())
    data = EncodedExamples(ids, None, labels, LABELS, np.array([2, 2, 2]), np.arange(3), report, "hand")
    return task_of("text-classification").objective(data)


def test_the_loss_is_the_cross_entropy_of_each_row_in_float32(objective: Objective) -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]], dtype=torch.bfloat16)
    losses = objective.losses(logits, torch.tensor([0, 0]))
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([math.log(2.0), math.log(4.0)], rel=1e-2)


def test_a_prediction_is_the_probability_of_each_label(objective: Objective) -> None:
    answers = objective.answers(torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]), torch.tensor([1, 0]))
    predicted = objective.predictions(np.array([2, 0]), list(answers.numpy()))
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, [[0.25, 0.75], [0.5, 0.5]])
    assert objective.predictions(np.empty(0, dtype=np.int64), []).shape == (0, 2)


def test_scores_are_those_of_the_examples_asked_about(objective: Objective) -> None:
    scores = objective.scores(np.array([2, 0]), np.array([[0.25, 0.75], [0.1, 0.9]], dtype=np.float32))
    assert scores["accuracy"] == 0.5
    assert scores["log_loss"] == pytest.approx(-(math.log(0.75) + math.log(0.1)) / 2, rel=1e-6)
    assert list(scores) == ["accuracy", "macro_f1", "matthews_correlation", "log_loss"]
    nothing = objective.scores(np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.float32))
    assert all(math.isnan(score) for score in nothing.values())


def test_each_example_is_one_part_of_the_mean(objective: Objective) -> None:
    assert objective.units.tolist() == [1, 1, 1]
