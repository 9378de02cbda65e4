"""What is found out about a model's forward before the first pack."""

import numpy as np
import pytest
import torch
from engine_builders import FAMILIES, frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data

from lora_search.training.logits import same_logits
from lora_search.training.probing import ForwardFacts


def headless(family):
    """A classifier whose head gives every text the same logits."""
    model = tiny_model(family)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data.fill_(1.0)
    return model


def facts_of(base, **choices):
    return make_engine(base, toy_data(**choices)).forward.facts


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "deberta-v2"])
def test_most_models_give_every_module_one_entry_per_row_and_do_not_see_padding(family):
    assert facts_of(tiny_base(family)) == ForwardFacts(sees_padding=False, shared=frozenset())


def test_flattened_rows_are_rows():
    assert facts_of(frozen(tiny_model("opt"))) == ForwardFacts(sees_padding=False, shared=frozenset())


@pytest.mark.parametrize(
    ("share", "leaves"), [(True, ("query_proj", "key_proj")), (False, ("pos_key_proj", "pos_query_proj"))]
)
def test_deberta_projects_relative_positions_once_for_all_rows(share, leaves):
    facts = facts_of(frozen(tiny_model("deberta-v2", share_att_key=share)))
    names = {f"deberta.encoder.layer.{layer}.attention.self.{leaf}" for layer in range(3) for leaf in leaves}
    assert facts == ForwardFacts(sees_padding=False, shared=frozenset(names))


@pytest.mark.parametrize("longest", [2, 3, 14])
def test_a_model_that_mixes_tokens_by_a_transform_sees_padding(longest):
    tiny = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 32}
    facts = facts_of(frozen(tiny_model("fnet", **tiny)), longest=longest, types=True)
    assert facts.sees_padding == (longest > 2)  # texts of one length are never padded
    assert facts.shared == frozenset()


def test_looking_leaves_nothing_behind():
    base = frozen(tiny_model("bert"))
    make_engine(base, toy_data())
    assert not any(module._forward_pre_hooks for module in base.model.modules())


def test_layers_that_see_tokens_first_are_not_taken_for_rows():
    model = tiny_model("bert")
    query = model.bert.encoder.layer[1].attention.self.query
    query.register_forward_pre_hook(lambda m, args: (args[0].transpose(0, 1),))
    query.register_forward_hook(lambda m, args, out: out.transpose(0, 1))
    name = "bert.encoder.layer.1.attention.self.query"
    assert facts_of(frozen(model)) == ForwardFacts(False, frozenset(), tokens_first=frozenset({name}))


def test_padding_is_found_where_the_shortest_texts_are_all_the_same():
    data = toy_data()
    for place in np.argsort(data.lengths, kind="stable")[:4]:
        data.input_ids[place].resize(2, refcheck=False)
        data.input_ids[place][:] = 5
        data.lengths[place] = 2
    assert not make_engine(tiny_base("bert"), data).forward.facts.sees_padding


def test_a_head_that_gives_every_text_the_same_shows_nothing():
    assert facts_of(frozen(headless("bert"))).sees_padding
    assert not facts_of(frozen(headless("bert")), longest=2).sees_padding  # all of one length


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_logits_that_cannot_differ_are_never_the_same(weight):
    model = headless("bert")
    model.classifier.weight.data.fill_(weight)
    base, data = frozen(model), toy_data()
    cell = make_cell(base, layers="top-1", rate=1e-3)
    engine = make_engine(base, data)
    ours = engine.train([cell], 0)[0]
    assert engine.forward.pooled is None
    assert not engine.forward.prefix.prepare(2)
    theirs = make_engine(tiny_base("bert"), data).train([cell], 0)[0]  # a cell draws a head of its own
    np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)


ROWS = [[1.0, 2.0], [3.0, -4.0]]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("logits", "expected", "same"),
    [
        (ROWS, ROWS, True),
        ([[1.0, 2.0], [3.0, -4.0004]], ROWS, True),
        ([[1.0, 2.0], [3.0, -4.005]], ROWS, False),
        ([[3.0, -4.0], [1.0, 2.0]], ROWS, False),
        ([[1.0, 2.0]], ROWS, False),
        ([[1.0, 2.0], [3.0, NAN]], ROWS, False),
        ([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], False),
        ([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]], False),
        ([[1.0, 2.0], [1.0, NAN]], [[1.0, 2.0], [1.0, NAN]], False),
        ([[1.0, 2.0], [3.0, INF]], [[1.0, 2.0], [3.0, INF]], False),
    ],
)
def test_logits_are_the_same_only_where_others_would_not_be(logits, expected, same):
    assert same_logits(torch.tensor(logits), torch.tensor(expected), 1e-3) is same
