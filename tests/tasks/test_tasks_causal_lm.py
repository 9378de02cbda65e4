"""Causal language models: numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_search.data.chat import ChatReport
from lora_search.data.chat_encoding import UNTRAINED, EncodedExchanges
from lora_search.errors import ExperimentError
from lora_search.spec import Experiment
from lora_search.tasks import ReadsStates, check_keys, task_of, vocabulary
from lora_search.tasks.causal_lm import CompletionObjective

TASK = task_of("causal-lm")
NONE = UNTRAINED


@pytest.fixture
def data() -> EncodedExchanges:
    """Two trained tokens of four, and one of two; a vocabulary of three."""
    report = ChatReport("hand", 2, {}, None, {"example": 2}, None, None, 0, 0, ())
    return EncodedExchanges(
        input_ids=(np.array([0, 0, 1, 2]), np.array([0, 1])),
        token_type_ids=None,
        labels=np.zeros(2, dtype=np.int64),
        label_names=("example",),
        lengths=np.array([4, 2]),
        groups=np.arange(2),
        report=report,
        fingerprint="hand",
        targets=np.array([[NONE, 1, 2, NONE], [1, NONE, NONE, NONE]], dtype=np.int32),
        texts=("", ""),
        adds_special=False,
        ends=None,
    )


def objective_of(data: EncodedExchanges) -> CompletionObjective:
    objective = TASK.objective(data)
    assert isinstance(objective, CompletionObjective)
    assert isinstance(objective, ReadsStates)
    return objective


def logits_of(*rows: list[int]) -> torch.Tensor:
    """Rows in which these tokens are twice as probable as each other one."""
    logits = torch.zeros(len(rows), len(rows[0]), 3)
    for row, tokens in enumerate(rows):
        for place, token in enumerate(tokens):
            logits[row, place, token] = math.log(2.0)
    return logits


def test_a_loss_is_summed_over_the_trained_tokens_of_a_row(data: EncodedExchanges) -> None:
    objective = objective_of(data)
    assert objective.units.tolist() == [2, 1]
    assert objective.rows(np.array([1, 0])).tolist() == [1, 0]
    logits = logits_of([0, 1, 0, 0], [1, 0, 0, 0])
    losses = objective.losses(logits, torch.from_numpy(data.targets))
    assert losses.tolist() == pytest.approx([math.log(2.0) + math.log(4.0), math.log(2.0)])
    narrow = objective.losses(logits[1:, :2], torch.from_numpy(data.targets)[1:])
    assert narrow.tolist() == pytest.approx([math.log(2.0)]), "of a batch narrower than the longest example"


def test_a_prediction_is_nats_tokens_and_right_tokens(data: EncodedExchanges) -> None:
    objective = objective_of(data)
    answers = objective.answers(logits_of([0, 1, 0, 0], [1, 0, 0, 0]), torch.from_numpy(data.targets))
    predicted = objective.predictions(np.array([0, 1]), list(answers.numpy()))
    assert predicted[0].tolist() == pytest.approx([math.log(8.0), 2, 1])
    assert predicted[1].tolist() == pytest.approx([math.log(2.0), 1, 1])
    scores = objective.scores(np.array([0, 1]), predicted)
    assert scores == pytest.approx(
        {
            "completion_loss": math.log(16.0) / 3,
            "perplexity": 16.0 ** (1 / 3),
            "completion_accuracy": 2 / 3,
        }
    )
    none = objective.scores(np.empty(0, dtype=np.int64), predicted[:0])
    assert all(math.isnan(score) for score in none.values())


def test_who_knows_only_how_often_tokens_occur(data: EncodedExchanges) -> None:
    nothing = objective_of(data).losses_of_nothing(np.array([0, 1]))
    # of token 0 one is made up: of four, two are of token 1
    assert nothing.tolist() == pytest.approx([math.log(2.0) + math.log(4.0), math.log(2.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_through_a_head_in_parts_are_those_of_all_its_logits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weight, states, targets = torch.randn(11, 5).to(dtype), torch.randn(9, 5).to(dtype), torch.arange(9)
    shares = torch.rand(9)
    whole = states.clone().requires_grad_()
    expected = F.cross_entropy((whole @ weight.t()).float(), targets, reduction="none")
    (expected * shares).sum().backward()
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", 2 * 11)
    parts = states.clone().requires_grad_()
    nats = vocabulary.token_nats(parts, targets, lambda some: some @ weight.t())
    (nats * shares).sum().backward()
    exact = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(nats, expected.detach(), **exact)
    torch.testing.assert_close(parts.grad, whole.grad, **exact)
    again, right = vocabulary.token_answers(states, targets, lambda some: some @ weight.t())
    torch.testing.assert_close(again, nats.detach(), **exact)
    assert right.tolist() == ((states @ weight.t()).argmax(-1) == targets).float().tolist()
    assert vocabulary.token_nats(states[:0], targets[:0], lambda some: some @ weight.t()).shape == (0,)


def test_its_metrics_and_keys_are_its_own() -> None:
    spec = {"name": "a", "model": {"base": "b", "task": "causal-lm"}, "data": {"train": "c", "scheme": "IOB2"}}
    experiment = Experiment.model_validate({**spec, "verdict": {"metric": "token_accuracy"}})
    with pytest.raises(ExperimentError) as caught:
        check_keys(experiment, TASK)
    assert caught.value.mistakes == (
        "data.scheme: must be left out for causal-lm, got 'IOB2'",
        "verdict.metric: must be completion_loss or completion_accuracy for causal-lm, got 'token_accuracy',"
        " did you mean completion_accuracy?",
    )
    other = {**spec, "model": {"base": "b"}, "data": {"train": "c", "messages": "talk"}}
    with pytest.raises(ExperimentError) as caught:
        check_keys(
            Experiment.model_validate({**other, "verdict": {"metric": "accuracy"}}), task_of("text-classification")
        )
    assert caught.value.mistakes == ("data.messages: must be left out for text-classification, got 'talk'",)
