"""Ranks that differ by module: what a pattern and EVA come to, counted by hand, and found by PEFT as they are meant."""

import pytest
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_model

from lora_search.models import (
    inspect_model,
    module_ranks,
    peft_patterns,
    peft_targets,
    ranked_modules,
    resolve_targets,
    trained_parameters,
)
from lora_search.models.ranks import ranks_sentence
from lora_search.spec import AdapterSpec


def spec_of(pattern, rank=4, **changes):
    return AdapterSpec(rank=rank, alpha=2.0 * rank, targets="all-linear", rank_pattern=pattern, **changes)


def modules_of(family, targets="all-linear", layers="top-2"):
    model = tiny_model(family)
    structure = inspect_model(model)
    return model, structure, resolve_targets(structure, targets, layers)


@pytest.mark.parametrize(
    ("pattern", "rank", "expected"),
    [
        ("mlp:0.5", 4, {"query": 4, "key": 4, "value": 4, "attention.output.dense": 4, "intermediate.dense": 2}),
        ("mlp:0.5", 3, {"query": 3, "intermediate.dense": 2, "output.dense": 2}),  # half is rounded up
        ("mlp:0.01", 4, {"query": 4, "intermediate.dense": 1}),
        ("attention:2,mlp:0.5", 2, {"query": 4, "key": 4, "attention.output.dense": 4, "output.dense": 1}),
        ("query+value:0.25,attention:2", 4, {"query": 1, "value": 1, "key": 8, "intermediate.dense": 4}),
    ],
)
def test_a_factor_is_that_of_the_narrowest_kind(pattern, rank, expected):
    _, _, modules = modules_of("bert", layers="0")
    found = module_ranks(modules, spec_of(pattern, rank))
    names = {f"bert.encoder.layer.0.{leaf}": rank for leaf, rank in expected.items() if leaf.partition(".")[2]}
    names |= {f"bert.encoder.layer.0.attention.self.{leaf}": rank for leaf, rank in expected.items() if "." not in leaf}
    assert {name: found[name] for name in names} == names
    assert len(found) == 6


def test_eva_gives_ranks_to_what_explains_most_and_no_module_more_than_twice_its_own():
    """A budget of 3 modules x rank 2: the six largest of the first four shares of each."""
    _, _, modules = modules_of("llama", targets="q_proj,k_proj,up_proj", layers="0")
    one, two, three = (module.name for module in modules)
    explained = {
        one: [0.5, 0.2, 0.1, 0.09, 0.08, 0.01],
        two: [0.30, 0.05, 0.04, 0.03],
        three: [0.06, 0.02, 0.01, 0.01],
    }
    # 0.5, 0.3, 0.2, 0.1, 0.09 and then 0.06, for 0.08 is the fifth of its module
    assert module_ranks(modules, spec_of("eva", 2), explained) == {one: 4, two: 1, three: 1}
    # with rank 1, of which two components each are looked at: 0.5, 0.3, 0.2
    kept, ranks = ranked_modules(modules, spec_of("eva", 1), explained)
    assert ranks == {one: 2, two: 1}
    assert [module.name for module in kept] == [one, two]
    assert ranks_sentence(modules, ranks) == "self_attn.q_proj 2, self_attn.k_proj 1, mlp.up_proj 0"


def test_of_equal_shares_the_first_module_is_given_more():
    _, _, modules = modules_of("llama", targets="q_proj,k_proj", layers="0")
    same = {module.name: [0.4, 0.3, 0.2] for module in modules}
    assert list(module_ranks(modules, spec_of("eva", 1), same).values()) == [1, 1]
    uneven = same | {modules[1].name: [0.4, 0.1, 0.1]}
    assert list(module_ranks(modules, spec_of("eva", 2), uneven).values()) == [3, 1]


def test_eva_without_what_it_goes_by_is_a_bug():
    _, _, modules = modules_of("bert")
    with pytest.raises(ValueError, match="EVA needs to know"):
        module_ranks(modules, spec_of("eva"))


@pytest.mark.parametrize("scaling", ["lora", "rslora"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_peft_finds_each_module_at_its_rank_and_at_the_adapters_scale(family, scaling):
    model, structure, modules = modules_of(family)
    for number, pattern in enumerate(("attention:2,mlp:0.5", "query+value:0.5,mlp:1.5", "every one")):
        spec = spec_of("uniform" if pattern == "every one" else pattern, scaling=scaling)
        ranks = ranked_modules(modules, spec)[1] or {module.name: 1 + n for n, module in enumerate(modules)}
        patterns = peft_patterns(modules, ranks, spec.rank)
        words = peft_targets(structure, modules)
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            target_modules=list(words.target_modules),
            layers_to_transform=list(words.layers_to_transform),
            use_rslora=scaling == "rslora",
            fan_in_fan_out=family == "gpt2",
            rank_pattern=patterns,
            alpha_pattern={key: spec.alpha_at(rank) for key, rank in patterns.items()},
        )
        if number == 0:
            theirs = get_peft_model(model, config)
        else:
            theirs.add_adapter(f"other {number}".replace(" ", "_"), config)
        name = "default" if number == 0 else f"other_{number}"
        found = {module.name: theirs.get_submodule(f"base_model.model.{module.name}") for module in modules}
        assert {module: layer.r[name] for module, layer in found.items()} == ranks
        assert all(layer.scaling[name] == pytest.approx(spec.scale) for layer in found.values())
        counted = sum(p.numel() for key, p in theirs.named_parameters() if f".{name}." in key and "lora_" in key)
        assert counted == trained_parameters(modules, spec, ranks)


def test_keys_are_short_where_they_find_no_other_module():
    _, _, modules = modules_of("bert")
    ranks = ranked_modules(modules, spec_of("attention:2,mlp:0.5"))[1]
    # "output.dense" would find the attention's too, which comes first
    assert peft_patterns(modules, ranks, 4) == {
        "query": 8,
        "key": 8,
        "value": 8,
        "attention.output.dense": 8,
        "intermediate.dense": 2,
        "bert.encoder.layer.2.output.dense": 2,
        "bert.encoder.layer.3.output.dense": 2,
    }
    assert peft_patterns(modules, {}, 4) == {}
    assert peft_patterns(modules, ranked_modules(modules, spec_of("attention:2"))[1], 4).keys() == {
        "query",
        "key",
        "value",
        "attention.output.dense",
    }
