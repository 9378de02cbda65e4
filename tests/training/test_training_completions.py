"""Going on with texts: packed = alone = cached, however many logits are made at once, and all of it = transformers and
PEFT with labels of -100."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from engine_builders import CONFIGS, VOCABULARY, assert_same_training, cells_that_differ, make_cell, make_engine
from peft_loop import train_with_peft, trained_weights
from transformers import AutoConfig, AutoModelForCausalLM

from lora_search.data.chat import ChatReport
from lora_search.data.chat_encoding import UNTRAINED, EncodedExchanges
from lora_search.models import FrozenBase, inspect_model
from lora_search.tasks import task_of, vocabulary

TASK = task_of("causal-lm")
COUNT, FAMILIES = 24, ("gpt2", "llama", "qwen3", "opt")
MORE = {"gemma2": {**CONFIGS["llama"], "head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 64},
        "granite": {**CONFIGS["llama"], "logits_scaling": 3.0}}  # fmt: skip
ALONE = {"prefix_cache": False, "token_budget": 10**6}
WAYS = {
    "micro-batched": {"prefix_cache": False, "token_budget": 60},
    "cached": {"token_budget": 100},
    "cached, in lanes": {"token_budget": 100, "lanes": 2},
    "checkpointed": {"token_budget": 100, "checkpointing": True},
}


@cache
def base_of(family, tied=False):
    common = {"vocab_size": VOCABULARY, "pad_token_id": None, "initializer_range": 0.2, "tie_word_embeddings": tied}
    special = {"bos_token_id": 1, "eos_token_id": 2, "use_cache": False}
    config = AutoConfig.for_model(family, **{**common, **special, **CONFIGS.get(family, {}), **MORE.get(family, {})})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return FrozenBase(model, None, inspect_model(model, frozen_head=True), TASK.head(()), "random")


@cache
def exchanges():
    """Random texts, each token's successor its double or anything; the second half of most is trained, all of some."""
    draw = np.random.default_rng(0)
    ids, targets = [], []
    for example in range(COUNT):
        row = draw.integers(3, VOCABULARY, draw.integers(3, 14))
        doubled = draw.random(len(row)) < 0.7
        for place in range(1, len(row)):
            row[place] = 3 + (2 * row[place - 1]) % (VOCABULARY - 3) if doubled[place] else row[place]
        row[-1] = 2
        mask = np.arange(len(row)) >= (1 if example % 5 == 0 else len(row) // 2)
        ids.append(row)
        targets.append(np.append(np.where(mask, row, UNTRAINED)[1:], UNTRAINED))
    lengths = np.array([len(row) for row in ids])
    padded = np.full((COUNT, lengths.max()), UNTRAINED, dtype=np.int32)
    for row, right in enumerate(targets):
        padded[row, : len(right)] = right
    report = ChatReport("toy", COUNT, {}, None, {"example": COUNT}, None, None, 0, 0, ())
    return EncodedExchanges(
        tuple(ids), None, np.zeros(COUNT, dtype=np.int64), ("example",), lengths, np.arange(COUNT), report, "toy",
        targets=padded, texts=("",) * COUNT, adds_special=False, ends=None,
    )  # fmt: skip


def train(base, cells, **settings):
    engine = make_engine(base, exchanges(), epochs=3, batch_size=6, **settings)
    return engine, engine.train(cells, pack=0)


@cache
def alone(family):
    base = base_of(family)
    return [train(base, [cell], **ALONE)[1][0] for cell in cells_that_differ(base, COUNT)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_every_way_of_computing_a_cell_gives_the_same(family, way, monkeypatch):
    expected = alone(family)
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", 7 * VOCABULARY)
    base = base_of(family)
    engine, together = train(base, cells_that_differ(base, COUNT), **WAYS[way])
    assert engine.forward.pooled is None, "every token is answered"
    assert engine.forward.readout is not None, "its logits are made where they are needed"
    assert engine.forward.prefix.note is None
    assert not engine.forward.facts.sees_padding
    assert not engine.split_packs
    for ours, theirs in zip(together, expected, strict=True):
        assert_same_training(ours, theirs)


def padded_batch(rows):
    """What transformers is given: ids padded with an id that is end-of-text too, a mask, and labels of -100."""
    data = exchanges()
    width = int(data.lengths[rows].max())
    ids, labels = (torch.full((len(rows), width), value) for value in (2, UNTRAINED))
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        length = int(data.lengths[row])
        ids[place, :length] = torch.from_numpy(data.input_ids[row])
        mask[place, :length] = 1
        labels[place, 1:length] = torch.from_numpy(data.targets[row, : length - 1].astype(np.int64))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_a_cell_is_what_transformers_and_peft_train(family):
    """Their own loss with labels of -100, their gradients, torch's AdamW at a linear rate."""
    base, data = base_of(family), exchanges()
    cell = make_cell(base, rank=3, alpha=5.0, targets="all-linear", first=12, rate=3e-3, count=COUNT)
    model, losses = train_with_peft(base, cell, padded_batch, TASK.peft_type)

    steps = []
    engine = make_engine(base, data, epochs=2, batch_size=4, warmup_ratio=0.0, token_budget=30)
    trained = engine.train([cell], pack=0, listener=steps.append)[0]
    np.testing.assert_allclose([step.loss for step in steps], losses, rtol=1e-5)
    theirs = trained_weights(model)
    assert trained.state.keys() == theirs.keys()
    for name, value in trained.state.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-4, msg=name)
    with torch.no_grad():
        per_token = float(model(**padded_batch(cell.evaluate)).loss)
    assert trained.result.scores["completion_loss"] == pytest.approx(per_token, rel=1e-5)
    assert trained.result.scores["perplexity"] == pytest.approx(np.exp(per_token), rel=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_without_an_adapter_the_base_is_predicted_from_as_it_is(tied):
    base = base_of("llama", tied)
    assert base.structure.head_modules == () == base.structure.modules_to_save
    assert base.structure.head_parameters == 0
    cell = replace(make_cell(base, 0, count=COUNT), modules=())
    _, (trained,) = train(base, [cell])
    assert (trained.result.state, trained.result.steps, trained.state) == ("complete", 0, {})
    with torch.no_grad():
        per_token = float(base.model(**padded_batch(cell.evaluate)).loss)
    assert trained.result.scores["completion_loss"] == pytest.approx(per_token, rel=1e-5)


def test_a_model_that_makes_its_logits_in_a_way_of_its_own_is_trained_through_them():
    base = base_of("llama")

    class Odd(type(base.model)):
        def forward(self, **arguments):
            answered = super().forward(**arguments)
            answered.logits = answered.logits + torch.linspace(0, 1, VOCABULARY)
            return answered

    model = copy.deepcopy(base.model)
    model.__class__ = Odd
    odd = FrozenBase(model, None, base.structure, base.head, "odd")
    cell = make_cell(odd, 0, rank=2, targets="all-linear", layers="all", rate=3e-3, count=COUNT)
    engine, (trained,) = train(odd, [cell], token_budget=60)
    assert engine.forward.readout is None
    assert any("those of all tokens are held at once" in note for note in engine.notes)
    assert trained.result.state == "complete"


def test_the_largest_block_of_logits_is_of_a_part_of_the_trained_tokens(monkeypatch):
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", 5 * VOCABULARY)
    base = base_of("llama")
    seen = []
    hook = base.model.lm_head.register_forward_hook(lambda module, args, output: seen.append("called"))
    made = vocabulary.F.cross_entropy

    def noting(logits, *args, **kwargs):
        seen.append(tuple(logits.shape))
        return made(logits, *args, **kwargs)

    monkeypatch.setattr(vocabulary.F, "cross_entropy", noting)
    train(base, [make_cell(base, 0, targets="all-linear", layers="all", count=COUNT)])
    hook.remove()
    blocks = [shape for shape in seen if shape != "called"]
    assert blocks
    assert max(rows for rows, _ in blocks) <= 5
