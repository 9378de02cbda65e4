"""From the words of an experiment to modules: groups, names, layers, and what is said when they do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import structure_from, tiny_config

from lora_search.errors import ModelError
from lora_search.models.roles import block_roles, projections_of
from lora_search.models.targets import (
    TargetRow,
    adapter_parameters,
    fused_notes,
    resolve_targets,
    target_notes,
    targets_table,
)


@pytest.fixture(scope="module")
def bert():
    return structure_from(tiny_config("bert"))


def leaves(modules):
    return {module.leaf for module in modules}


@pytest.mark.parametrize(
    ("name", "projects"),
    [
        ("query", ("query",)),
        ("q_proj", ("query",)),
        ("q_lin", ("query",)),
        ("query_proj", ("query",)),
        ("Wq", ("query",)),
        ("q", ("query",)),
        ("v_head", ("value",)),
        ("key_global", ("key",)),
        ("query_key_value", ("query", "key", "value")),
        ("Wqkv", ("query", "key", "value")),
        ("qkv_proj", ("query", "key", "value")),
        ("kv_a_proj_with_mqa", ("key", "value")),
        ("c_attn", ()),
        ("out_proj", ()),
        ("Wo", ()),
        ("gate_up_proj", ()),
        ("dense_h_to_4h", ()),
        ("w", ()),
    ],
)
def test_what_a_module_name_projects_to(name, projects):
    assert projections_of(name) == projects


def test_attention_is_the_component_with_the_query_whatever_it_is_called():
    roles = block_roles({"mixer.q": (8, 8), "mixer.v": (8, 8), "mixer.out": (8, 8), "ffn.value": (8, 32)})
    assert roles["mixer.out"].part == "attention"
    assert roles["ffn.value"].part == "mlp"
    assert roles["ffn.value"].projects == ()


def test_a_widening_projection_of_attention_carries_all_three_if_no_name_says_so():
    roles = block_roles({"attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "mlp.c_fc": (8, 32)})
    assert roles["attn.c_attn"].projects == ("query", "key", "value")
    assert roles["attn.c_proj"].projects == ()
    assert roles["mlp.c_fc"].part == "mlp"


@pytest.mark.parametrize("model_type", ["gpt2", "modernbert"])
def test_a_fused_projection_is_adapted_whole_and_it_is_said(model_type):
    structure = structure_from(tiny_config(model_type))
    (leaf,) = leaves(resolve_targets(structure, "query+value", "all"))
    assert target_notes(structure, "query+value") == (
        f"query+value is {leaf} in this model: one module computes query, key and value together and is adapted whole",
    )
    assert target_notes(structure, "attention") == ()


@pytest.mark.parametrize(
    ("shapes", "gated"),
    [
        ({"mlp.gate_up_proj": (8, 48), "mlp.down_proj": (24, 8)}, {"mlp.gate_up_proj"}),
        ({"mlp.gate_proj": (8, 24), "mlp.up_proj": (8, 24), "mlp.down_proj": (24, 8)}, set()),
        ({"mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8)}, set()),
        # twice what goes into another component's is nobody's gate
        ({"intermediate.dense": (8, 16), "output.dense": (16, 8), "lift": (8, 32)}, set()),
    ],
)
def test_a_module_that_gives_twice_what_the_next_one_takes_is_gated(shapes, gated):
    roles = block_roles({"attn.q_proj": (8, 8), **shapes})
    assert {leaf for leaf, role in roles.items() if role.gated} == gated


def test_what_is_several_in_one_is_said():
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
    assert fused_notes(structure_from(tiny_config("phi3", **config))) == (
        "self_attn.qkv_proj computes query, key and value together: an adapter on it is on all of that",
        "mlp.gate_up_proj computes a gate and what it gates together: an adapter on it is on all of that",
    )
    latent = {**config, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "n_routed_experts": 2}
    structure = structure_from(tiny_config("deepseek_v3", **latent))
    assert target_notes(structure, "query+value")[0] == (
        "query+value is self_attn.kv_a_proj_with_mqa in this model: one module computes key and value together and is"
        " adapted whole"
    )
    assert fused_notes(structure_from(tiny_config("llama"))) == ()


def test_separate_projections_need_no_note(bert):
    assert target_notes(bert, "query+value") == ()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("query", {"attention.self.query"}),
        ("self.query", {"attention.self.query"}),
        ("dense", {"attention.output.dense", "intermediate.dense", "output.dense"}),
        ("output.dense", {"attention.output.dense", "output.dense"}),
        ("query,intermediate.dense", {"attention.self.query", "intermediate.dense"}),
    ],
)
def test_names_match_the_end_of_a_module_name_but_only_inside_the_layers(bert, name, found):
    chosen = resolve_targets(bert, name, "all")
    assert leaves(chosen) == found
    assert len(chosen) == 4 * len(found)


def test_a_full_name_is_one_module(bert):
    (module,) = resolve_targets(bert, "bert.encoder.layer.3.output.dense", "all")
    assert (module.layer, module.in_features, module.out_features) == (3, 48, 32)
    with pytest.raises(ModelError, match=r"must name modules of layers 0,1, got bert.encoder.layer.3.output.dense"):
        resolve_targets(bert, "bert.encoder.layer.3.output.dense", "0,1")


@pytest.mark.parametrize(
    ("layers", "found"), [("all", (0, 1, 2, 3)), ("top-1/4", (3,)), ("top-3", (1, 2, 3)), ("0,2", (0, 2))]
)
def test_layers(bert, layers, found):
    assert tuple(module.layer for module in resolve_targets(bert, "query", layers)) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qeury", "got qeury, did you mean query? (its layers have attention.self.query, attention.self.key,"),
        ("q_lin", "got q_lin, did you mean query?"),
        ("v_proj", "got v_proj, did you mean value?"),
        ("atention", "got atention, did you mean attention?"),
        ("zzz", "must name linear modules of the model, got zzz (its layers have"),
        (
            "classifier",
            "must name linear modules inside the layers, got classifier, which is classifier (its layers have",
        ),
        (
            "pooler.dense",
            "must name linear modules inside the layers, got pooler.dense, which is bert.pooler.dense (its",
        ),
        (
            "LayerNorm",
            "must name linear modules inside the layers, got LayerNorm, which is bert.embeddings.LayerNorm (its",
        ),
    ],
)
def test_unknown_names_say_what_there_is(bert, name, message):
    with pytest.raises(ModelError) as caught:
        resolve_targets(bert, name, "all")
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith("search.targets: ")
    assert message in caught.value.mistakes[0]


def test_every_unknown_name_is_a_mistake_of_its_own(bert):
    with pytest.raises(ModelError) as caught:
        resolve_targets(bert, "one,query,two", "all")
    assert len(caught.value.mistakes) == 2


def test_a_group_the_model_does_not_have():
    structure = structure_from(tiny_config("xlnet", d_model=32, n_layer=2, n_head=4, d_inner=48))
    with pytest.raises(
        ModelError, match=r"search.targets: must exist in the model, got attention, .* ff.layer_1, ff.lay"
    ):
        resolve_targets(structure, "attention", "all")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("4", "search.layers: must be below 4, the number of layers of the model, got 4"),
        ("top-5", "search.layers: must name at most the 4 layers of the model, got top-5"),
    ],
)
def test_layers_the_model_does_not_have(bert, layers, message):
    with pytest.raises(ModelError) as caught:
        resolve_targets(bert, "query", layers)
    assert str(caught.value) == message


def test_parameters_by_hand(bert):
    # rank 3 on one (32 -> 32) and one (32 -> 48) module of one layer: 3 * 64 + 3 * 80
    assert adapter_parameters(resolve_targets(bert, "query,intermediate.dense", "0"), 3) == 432


@given(rank=st.integers(1, 64), layers=st.sets(st.integers(0, 3), min_size=1))
def test_parameters_grow_with_rank_and_add_over_layers(bert, rank, layers):
    text = ",".join(str(layer) for layer in sorted(layers))
    whole = adapter_parameters(resolve_targets(bert, "all-linear", text), rank)
    parts = [adapter_parameters(resolve_targets(bert, "all-linear", str(layer)), 1) for layer in layers]
    assert whole == rank * sum(parts)
    split = [resolve_targets(bert, part, text) for part in ("attention", "mlp")]
    assert whole == sum(adapter_parameters(modules, rank) for modules in split)


def test_the_table_lists_each_module_once_with_its_groups():
    table = targets_table(structure_from(tiny_config("gpt2")))
    assert table == (
        TargetRow("attn.c_attn", "conv1d", 32, 96, (0, 1, 2, 3), ("query+value", "attention", "all-linear"), 4 * 128),
        TargetRow("attn.c_proj", "conv1d", 32, 32, (0, 1, 2, 3), ("attention", "all-linear"), 4 * 64),
        TargetRow("mlp.c_fc", "conv1d", 32, 128, (0, 1, 2, 3), ("mlp", "all-linear"), 4 * 160),
        TargetRow("mlp.c_proj", "conv1d", 128, 32, (0, 1, 2, 3), ("mlp", "all-linear"), 4 * 160),
    )
