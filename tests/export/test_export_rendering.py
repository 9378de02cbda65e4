"""What users named is shown in the model card as they named it, and does nothing there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.export.card import _label_list
from lora_search.export.rendering import code_span, markdown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, text (with) 1.5 %", "plain, text (with) 1.5 %"),
        ("*bold* _it_", "\\*bold\\* \\_it\\_"),
        ("[click](http://x)", "\\[click\\](http://x)"),
        ("<script>alert(1)</script>", "\\<script\\>alert(1)\\</script\\>"),
        ("![x](y)", "\\!\\[x\\](y)"),
        ("a\n\n# heading", "a \\# heading"),
        ("a|b `c` \\", "a\\|b \\`c\\` \\\\"),
        ("&lt;", "\\&lt;"),
    ],
)
def test_text_is_no_markup(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a/b", "`a/b`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("a\n```\nb", "````a ``` b````"),
    ],
)
def test_code_stays_code(text: str, shown: str) -> None:
    assert code_span(text) == shown


@given(text=st.text())
def test_no_text_ends_its_code_span(text: str) -> None:
    span = code_span(text)
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in [run for run in re.findall("`+", inner) if len(run) == len(fence[0])]
    assert "\n" not in span


def test_labels_are_listed_as_text() -> None:
    assert _label_list(["<b>", "a*b"]) == "*\\<b\\>* and *a\\*b*"
    long = _label_list(["x" * 5000, "y"])
    assert len(long) < 100
