"""The small languages of targets, layers and ranks, and the guesses at what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.spec import layer_indices
from lora_search.spec.names import (
    LONGEST_STUDY_NAME,
    canonical_layers,
    canonical_rank_pattern,
    canonical_targets,
    is_study_name,
    rank_factors,
)
from lora_search.spec.suggestions import ChoiceError, closest


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("attention", "attention"),
        (["attention"], "attention"),
        ("v_proj, q_proj", "q_proj,v_proj"),
        (["v_proj", "q_proj", "v_proj"], "q_proj,v_proj"),
        ("query", "query"),
        ("query_key_value", "query_key_value"),
        ("self_attention.dense", "self_attention.dense"),
        ("attn", "attn"),
    ],
)
def test_targets_have_one_spelling(written: object, canonical: str) -> None:
    assert canonical_targets(written) == canonical


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("atention", "attention"),
        ("Attention", "attention"),
        ("all_linear", "all-linear"),
        ("query + value", "query+value"),
        (["q_proj", "attention"], None),
        ([], None),
        ("", None),
        (3, None),
        (["q", 3], None),
    ],
)
def test_targets_that_are_none(written: object, meant: str | None) -> None:
    with pytest.raises(ChoiceError) as caught:
        canonical_targets(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("all", "all"),
        ("top-2", "top-2"),
        ("top-2/6", "top-1/3"),
        ("top-3/3", "all"),
        ([5, 3, 5], "3,5"),
        ("5, 3", "3,5"),
    ],
)
def test_layers_have_one_spelling(written: object, canonical: str) -> None:
    assert canonical_layers(written) == canonical


@pytest.mark.parametrize("written", ["top-0", "top-3/2", "top-1/0", "half", "1,,2", [], [-1], [1.0], [True], 3, None])
def test_layers_that_are_none(written: object) -> None:
    with pytest.raises(ChoiceError, match='must be "all"'):
        canonical_layers(written)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
def test_a_share_of_the_layers_is_the_top_ones_and_never_none(part: int, more: int, count: int) -> None:
    whole = part + more
    chosen = layer_indices(canonical_layers(f"top-{part}/{whole}"), count)
    assert chosen == tuple(range(count - len(chosen), count))
    assert abs(len(chosen) - max(1, count * part / whole)) <= 0.5


def test_a_layer_the_model_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="must be below 6, the number of layers of the model, got 6"):
        layer_indices("3,6", 6)
    with pytest.raises(ValueError, match="must name at most the 6 layers of the model, got top-7"):
        layer_indices("top-7", 6)


def test_the_closest_choice_ignores_case_and_gives_up_in_time() -> None:
    assert closest("ACURACY", ["macro_f1", "accuracy"]) == "accuracy"
    assert closest("zzz", ["macro_f1", "accuracy"]) is None
    assert closest("x", []) is None


@pytest.mark.parametrize(
    ("written", "canonical", "factors"),
    [
        ("uniform", "uniform", {}),
        ("eva", "eva", {}),
        ("mlp:0.50", "mlp:0.5", {"mlp": 0.5}),
        (" mlp : 0.5 , attention:2.0", "attention:2,mlp:0.5", {"attention": 2.0, "mlp": 0.5}),
        ("mlp:1,attention:1", "uniform", {}),
        ("query+value:2,attention:2", "attention:2", {"attention": 2.0}),
        ("query+value:1,attention:2", "query+value:1,attention:2", {"query+value": 1.0, "attention": 2.0}),
        ("query+value:1,mlp:0.001", "mlp:0.001", {"mlp": 0.001}),
    ],
)
def test_ranks_by_module_have_one_spelling(written: str, canonical: str, factors: dict[str, float]) -> None:
    assert canonical_rank_pattern(written) == canonical
    assert canonical_rank_pattern(canonical) == canonical
    assert rank_factors(canonical) == factors


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (2, 'must be "uniform", "eva", or factors of the rank'),
        ("Eva", 'did you mean "eva"|did you mean eva'),
        ("mlp", "or factors of the rank"),
        ("atention:2,mlp:0.5", "must name a kind of module .*did you mean attention:2,mlp:0.5"),
        ("q_proj:2", "must name a kind of module"),
        ("mlp:x", "must have factors from 0.001 to 64"),
        ("mlp:-1", "must have factors from 0.001 to 64"),
        ("mlp:65", "must have factors from 0.001 to 64"),
        ("mlp:1e1", "must have factors from 0.001 to 64"),
        ("mlp:2,mlp:3", "must give mlp one factor"),
        ("", "or factors of the rank"),
    ],
)
def test_what_is_no_pattern_is_refused(written: object, message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        canonical_rank_pattern(written)


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "1", "x" * LONGEST_STUDY_NAME])
def test_names_that_a_study_can_have(name: str) -> None:
    assert is_study_name(name)


@pytest.mark.parametrize(
    "name", ["", "../a", "a/b", ".a", "-a", "a b", "a\n", 'a"', "\u00e4", "x" * (LONGEST_STUDY_NAME + 1), None, 3]
)
def test_names_that_no_study_can_have(name: object) -> None:
    assert not is_study_name(name)
