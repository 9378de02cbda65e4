"""Values in messages: readable, in one line, never long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.spec.quoting import VALUE_WIDTH, cut, in_one_line, quoted

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=ANY)
def test_any_value_is_shown_in_one_short_line(value: Any) -> None:
    shown = quoted(value)
    assert len(shown) <= VALUE_WIDTH
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "'text'"),
        ("pos\u200b\u00a0", "'pos\\u200b\\xa0'"),
        ("o\u0308", "'o\\u0308'"),
        ("\u00f6", "'ö'"),
        ("x" * 1000, f"'{'x' * 75}...'"),
        ("it's", '"it\'s"'),
        (["a"] * 1000, "list of 1000 values"),
        ({"a": 1}, "{'a': 1}"),
        (b"\x00" * 1000, f"b'{chr(92)}x00"),
        (None, "None"),
    ],
)
def test_values_as_they_are_shown(value: Any, shown: str) -> None:
    assert quoted(value).startswith(shown) if isinstance(value, bytes) else quoted(value) == shown


def test_cutting() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abc..."
    assert in_one_line("a\n  b\tc" + "x" * 100, 8) == "a b c..."


def test_a_number_of_thousands_of_digits() -> None:
    assert quoted(10**5000) == "a int too long to show"
