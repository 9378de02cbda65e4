"""Tags of words: packed = alone = cached, with one row or several, and all of it = transformers and PEFT."""

from functools import cache

import numpy as np
import pytest
import torch
from engine_builders import CONFIGS, VOCABULARY, assert_same_training, cells_that_differ, make_cell, make_engine
from peft_loop import padded_batch, train_with_peft, trained_weights
from transformers import AutoConfig, AutoModelForTokenClassification

from lora_search.data.tagged import TagReport
from lora_search.data.tagged_encoding import UNLABELLED, EncodedSentences
from lora_search.models import FrozenBase, inspect_model
from lora_search.tasks import task_of

TASK = task_of("token-classification")
TAGS = ("O", "B-x", "I-x", "B-y", "I-y")
COUNT, FAMILIES = 24, ("bert", "roberta", "distilbert", "gpt2", "llama")
ALONE = {"prefix_cache": False, "token_budget": 10**6}
WAYS = {
    "micro-batched": {"prefix_cache": False, "token_budget": 60},
    "cached": {"token_budget": 100},
    "cached, in lanes": {"token_budget": 100, "lanes": 2},
    "checkpointed": {"token_budget": 100, "checkpointing": True},
}


@cache
def base_of(family):
    common = {"vocab_size": VOCABULARY, "pad_token_id": 0, "num_labels": len(TAGS), "initializer_range": 0.2}
    special = {"bos_token_id": 1, "eos_token_id": 2, "use_cache": False, "hidden_dropout": 0.0}
    config = AutoConfig.for_model(family, **{**common, **special, **CONFIGS[family]})
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_config(config).eval().requires_grad_(False)
    return FrozenBase(model, None, inspect_model(model), TASK.head(TAGS), "random")


@cache
def sentences():
    """Sentences of one or two rows; a tag follows from which fifth of the vocabulary its word is of."""
    draw = np.random.default_rng(0)
    ids, targets, first, tags, seen = [], [], [0], [], []
    for example in range(COUNT):
        mine = []
        for _ in range(1 + (example % 3 == 0)):
            row = draw.integers(4, VOCABULARY, draw.integers(3, 12))
            right = np.where(draw.random(len(row)) < 0.7, (row - 4) * len(TAGS) // (VOCABULARY - 4), UNLABELLED)
            right[0] = UNLABELLED
            right[1] = 1
            ids.append(row)
            targets.append(right)
            mine += right[right != UNLABELLED].tolist()
        first.append(len(ids))
        tags.append(np.array(mine))
        seen.append(np.arange(len(mine)))
    lengths = np.array([len(row) for row in ids])
    padded = np.full((len(ids), lengths.max()), UNLABELLED)
    for row, right in enumerate(targets):
        padded[row, : len(right)] = right
    report = TagReport("toy", COUNT, {}, None, {"x": COUNT}, None, None, 0, 0, ())
    return EncodedSentences(
        tuple(ids), None, np.arange(COUNT) % 2, TAGS, lengths, np.arange(COUNT), report, "toy",
        targets=padded, first_rows=np.array(first), words=(("w",),) * len(ids), tags=tuple(tags), seen=tuple(seen),
        scheme="IOB2",
    )  # fmt: skip


def train(base, cells, **settings):
    engine = make_engine(base, sentences(), epochs=3, batch_size=6, **settings)
    return engine, engine.train(cells, pack=0)


@cache
def alone(family):
    base = base_of(family)
    return [train(base, [cell], **ALONE)[1][0] for cell in cells_that_differ(base, COUNT)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_of_computing_a_cell_gives_the_same(family, way):
    base = base_of(family)
    engine, together = train(base, cells_that_differ(base, COUNT), **WAYS[way])
    assert engine.forward.pooled is None, "every token is answered"
    assert engine.forward.prefix.note is None
    assert not engine.forward.facts.sees_padding
    assert not engine.split_packs
    for ours, theirs in zip(together, alone(family), strict=True):
        assert_same_training(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_recorded_are_counts_of_every_word_of_every_sentence(family):
    for trained in alone(family):
        counts = trained.result.probabilities
        assert counts.shape[1] == 9
        assert list(trained.result.scores) == [metric.name for metric in TASK.metrics]
        assert all(value.abs().max() > 1e-3 for name, value in trained.state.items() if name.endswith("lora_B"))
        words = [len(sentences().tags[example]) for example in trained.result.examples]
        assert counts[:, 7].tolist() == words
        assert (counts[:, 2] > 0).all(), "no entity goes with a long sentence"


def labelled(base, data, rows):
    width = int(data.lengths[rows].max())
    return {**padded_batch(base, data, rows), "labels": torch.from_numpy(data.targets[rows, :width])}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_is_what_transformers_and_peft_train(family):
    """Their own loss with labels of -100, their gradients, torch's AdamW at a constant rate."""
    base, data = base_of(family), sentences()
    cell = make_cell(base, rank=3, alpha=5.0, targets="all-linear", first=12, rate=3e-3, count=COUNT)
    model, losses = train_with_peft(
        base, cell, lambda examples: labelled(base, data, data.rows_of(examples)), TASK.peft_type
    )

    steps = []
    engine = make_engine(base, data, epochs=2, batch_size=4, warmup_ratio=0.0, token_budget=64)
    trained = engine.train([cell], pack=0, listener=steps.append)[0]
    np.testing.assert_allclose([step.loss for step in steps], losses, rtol=1e-5)
    theirs = trained_weights(model)
    assert trained.state.keys() == theirs.keys()
    for name, value in trained.state.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-4, msg=name)

    objective = TASK.objective(data)
    rows = data.rows_of(cell.evaluate)
    with torch.no_grad():
        batch = labelled(base, data, rows)
        answers = objective.answers(model(**batch).logits, torch.from_numpy(data.targets[rows]))
    expected = objective.predictions(cell.evaluate, list(answers.numpy()))
    np.testing.assert_allclose(trained.result.probabilities, expected, rtol=1e-4, atol=1e-4)
