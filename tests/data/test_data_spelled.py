"""Lists as JSON, Python and numpy spell them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.spelled import is_bracketed, spelled_list

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6)


@given(values=WORDS)
def test_every_way_to_spell_strings_gives_them_back(values: list[str]) -> None:
    with np.printoptions(linewidth=20, threshold=10_000):
        array = str(np.array(values, dtype=object))
    for text in (json.dumps(values), str(values), str(tuple(values)), array, f"array({values}, dtype=object)"):
        assert is_bracketed(text)
        assert spelled_list(text) == values
    for collection in (set(values), frozenset(values)):
        assert sorted(spelled_list(str(collection)) or []) == sorted(collection)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1 0 1]", [1, 0, 1]),
        ("[1. 0.]", [1.0, 0.0]),
        ("[True, None]", [True, None]),
        ("[ 'a'\n 'b' ]", ["a", "b"]),
        ("set()", []),
        ("{}", None),
        ("['a' 'b', 'c']", None),
        ("['a''b']", None),
        ("['a', ['b']]", None),
        ("{'a': 1}", None),
        ('{"a": 1}', None),
        ("[toxic, insult]", None),
        ("['a'", None),
        ("toxic", None),
        ("", None),
    ],
)
def test_what_a_text_spells(text: str, values: list[Any] | None) -> None:
    assert spelled_list(text) == values
