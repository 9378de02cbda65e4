"""Numbers and sets of labels for texts: packed = alone = cached, numbers with the standardisation of each cell's own
training examples; and all of it = transformers' own loss, PEFT and AdamW."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from engine_builders import (
    COUNT,
    assert_same_training,
    cells_that_differ,
    frozen,
    make_cell,
    make_engine,
    tiny_model,
    toy_data,
)
from peft_loop import labelled, padded_batch, train_with_peft

from lora_search.adapters import merge_into
from lora_search.handover import exported_state, offset_of
from lora_search.tasks import as_trained_on, task_of
from lora_search.training.whole import WholeModel

FAMILIES = ("bert", "roberta", "llama")
ALONE = {"prefix_cache": False, "token_budget": 10**6}
WAYS = {
    "micro-batched": {"prefix_cache": False, "token_budget": 60},
    "cached": {"token_budget": 100},
    "cached, in lanes": {"token_budget": 100, "lanes": 2},
}


def numbers():
    """Prices: they follow from the third of the vocabulary that a text favours, and are far from 0."""
    data = toy_data()
    prices = 5000.0 + 300.0 * data.labels + 40.0 * np.random.default_rng(0).normal(size=COUNT)
    return replace(data, label_names=("price",), answers=prices)


@cache
def base_of(family):
    task = task_of("regression")
    head = task.head(("price",))
    model = tiny_model(family, num_labels=1, **head.config)
    return replace(frozen(model), head=head)


def train(family, cells, **settings):
    engine = make_engine(base_of(family), numbers(), epochs=3, batch_size=6, **settings)
    return engine, engine.train(cells, pack=0)


@cache
def alone(family):
    return [train(family, [cell], **ALONE)[1][0] for cell in cells_that_differ(base_of(family), COUNT)]


@pytest.mark.parametrize(
    ("family", "way"), [("bert", "micro-batched"), ("bert", "cached, in lanes"), ("llama", "cached")]
)
def test_every_way_of_computing_a_cell_gives_the_same(family, way):
    _, together = train(family, cells_that_differ(base_of(family), COUNT), **WAYS[way])
    for ours, theirs in zip(together, alone(family), strict=True):
        assert ours.result.train_loss == pytest.approx(theirs.result.train_loss, rel=1e-5)
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, rtol=1e-5)
        in_deviations = replace(theirs.result, probabilities=ours.result.probabilities)
        assert_same_training(ours, replace(theirs, result=in_deviations))
        assert 4000 < ours.result.probabilities.mean() < 6500, "the label's own unit"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_is_what_transformers_and_peft_train_on_standardised_numbers(family):
    base, data = base_of(family), numbers()
    cell = make_cell(base, rank=3, alpha=5.0, targets="all-linear", first=12, rate=3e-3)
    known = data.answers[cell.train]
    labels = torch.from_numpy((data.answers - known.mean()) / known.std()).float()
    model, losses = train_with_peft(base, cell, labelled(base, data, labels))
    steps = []
    engine = make_engine(base, data, epochs=2, batch_size=4, warmup_ratio=0.0, token_budget=64)
    trained = engine.train([cell], pack=0, listener=steps.append)[0]
    np.testing.assert_allclose([step.loss for step in steps], losses, rtol=1e-5)
    with torch.no_grad():
        answers = model(**padded_batch(base, data, cell.evaluate)).logits
    expected = answers.double().numpy() * known.std() + known.mean()
    np.testing.assert_allclose(trained.result.probabilities, expected, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_weights_answer_in_the_unit_of_the_label(family):
    """Plain transformers with problem_type regression: its loss is the squared error itself. A head without a bias
    lacks a constant, which is told."""
    base, data = base_of(family), numbers()
    cell = make_cell(base, rank=2, first=12, everything=True)
    _, (trained,) = train(family, [cell])
    state = exported_state(trained.state, base, data, cell.train)
    offset = offset_of(base, data, cell.train)
    assert (offset == 0.0) == (family != "llama")
    model = tiny_model(family, num_labels=1, problem_type="regression")
    merge_into(model, state, cell.adapter.scale)
    with torch.no_grad():
        labels = torch.from_numpy(data.answers - offset).float()
        answered = model(**padded_batch(base, data, cell.evaluate), labels=labels)
    ours = trained.result.probabilities
    np.testing.assert_allclose(answered.logits.numpy() + offset, ours, rtol=1e-5)
    assert trained.result.scores["rmse"] == pytest.approx(float(answered.loss) ** 0.5, rel=1e-4)


def test_no_cell_knows_the_numbers_it_is_scored_on():
    """Whatever the held-out numbers are, the trained weights and what they predict stay the same."""
    base, data = base_of("bert"), numbers()
    cell = make_cell(base, rank=2)
    other = data.answers.copy()
    other[cell.evaluate] *= 100.0
    (ours,), (theirs,) = (
        make_engine(base, each, epochs=1, batch_size=6).train([cell], pack=0)
        for each in (data, replace(data, answers=other))
    )
    np.testing.assert_array_equal(ours.result.probabilities, theirs.result.probabilities)
    assert ours.result.scores != theirs.result.scores


def test_the_whole_model_and_the_guess_are_standardised_too():
    base, data = base_of("bert"), numbers()
    cell = make_cell(base, rate=1e-3)
    engine = make_engine(base, data, epochs=2, batch_size=6)
    result = WholeModel(engine, "full").train(cell)
    assert result.scores["rmse"] < 2 * data.answers.std()
    objective = as_trained_on(engine.objective, cell.train)
    rows = cell.evaluate
    logits, targets = objective.guess(cell.train, rows), torch.from_numpy(objective.targets[rows])
    guessed = objective.predictions(rows, list(objective.answers(logits, targets).numpy()))
    np.testing.assert_allclose(guessed, data.answers[cell.train].mean(), rtol=1e-6)
    nothing = objective.losses_of_nothing(cell.train)
    np.testing.assert_allclose(objective.losses(logits, targets).numpy(), nothing[rows], rtol=1e-4)
    assert nothing[cell.train].mean() == pytest.approx(1.0)


def test_what_teaches_nothing_ends_halfway():
    base = base_of("bert")
    slow = make_cell(base, 0, fold=1, rate=1e-9, may_stall=True)
    quick = make_cell(base, 1, fold=1, rate=1e-2, may_stall=True)
    engine = make_engine(base, numbers(), epochs=16, batch_size=8)
    stalled, learned = engine.train([slow, quick], pack=0)
    assert stalled.stalled
    assert not learned.stalled


# -- any number of labels -----------------------------------------------------------------------------------------

LABELS = ("low", "middle", "high", "long")


def label_sets():
    """Which third of the vocabulary a text favours, and whether it is long: two labels, one or none."""
    data = toy_data()
    members = np.zeros((COUNT, len(LABELS)), dtype=np.uint8)
    members[np.arange(COUNT), data.labels] = np.arange(COUNT) % 5 > 0
    members[:, 3] = data.lengths > 8
    return replace(data, label_names=LABELS, answers=members)


@cache
def base_of_sets(family):
    head = task_of("multi-label-classification").head(LABELS)
    return replace(frozen(tiny_model(family, num_labels=len(LABELS), **head.config)), head=head)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_cell_of_label_sets_is_what_transformers_and_peft_train_packed_or_not(family):
    base, data = base_of_sets(family), label_sets()
    cell = make_cell(base, rank=3, alpha=5.0, targets="all-linear", first=12, rate=3e-3)
    model, losses = train_with_peft(base, cell, labelled(base, data, torch.from_numpy(data.answers).float()))
    steps = []
    engine = make_engine(base, data, epochs=2, batch_size=4, warmup_ratio=0.0, token_budget=64)
    trained = engine.train([cell], pack=0, listener=steps.append)[0]
    np.testing.assert_allclose([step.loss for step in steps], losses, rtol=1e-5)
    with torch.no_grad():
        expected = model(**padded_batch(base, data, cell.evaluate)).logits.sigmoid()
    np.testing.assert_allclose(trained.result.probabilities, expected, rtol=1e-4, atol=1e-5)
    others = cells_that_differ(base, COUNT)
    packed = engine.train([others[0], cell, others[1]], pack=0)[1]
    assert_same_training(packed, trained)


def test_who_knows_the_shares_of_labels_loses_what_is_said_of_nothing():
    base, data = base_of_sets("bert"), label_sets()
    objective, train = make_engine(base, data).objective, np.arange(20)
    rows = np.arange(20, COUNT)
    losses = objective.losses(objective.guess(train, rows), torch.from_numpy(objective.targets[rows]))
    np.testing.assert_allclose(losses.numpy(), objective.losses_of_nothing(train)[rows], rtol=1e-5)
