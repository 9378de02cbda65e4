"""What is found out about a model's forward before the first pack."""

import pytest
from engine_builders import FAMILIES, frozen, make_engine, tiny_base, tiny_model, toy_data

from lora_search.training.probing import ForwardFacts


def facts_of(base, **choices):
    return make_engine(base, toy_data(**choices)).forward


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
    facts = facts_of(frozen(model))
    assert "bert.encoder.layer.1.attention.self.query" in facts.shared
