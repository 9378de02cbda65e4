"""The scheme of tags: found, declared, broken."""

from __future__ import annotations

import pytest

from lora_search.data.tags import scheme_of
from lora_search.errors import DataError


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["B-x", "I-x", "O", "B-x"]], "IOB2"),
        ([["B-x", "B-x"]], "IOB2"),
        ([["I-x", "I-x", "O"], ["I-x", "B-x", "I-x"]], "IOB1"),
        ([["I-x", "I-y"]], "IOB1"),
        ([["B-x", "I-x", "E-x", "O", "S-y"]], "BIOES"),
        ([["S-y", "O"]], "BIOES"),
        ([["B-x", "I-x", "L-x", "O", "U-y"]], "BILOU"),
        ([["O", "O"]], "IOB2"),
    ],
)
def test_it_is_found(sentences: list[list[str]], scheme: str) -> None:
    assert scheme_of(sentences, range(1, len(sentences) + 1), "auto") == scheme


@pytest.mark.parametrize(
    ("sentences", "declared", "line"),
    [
        (
            [["B-x"], ["O", "I-x"], ["O", "I-x"]],
            "IOB2",
            "data.tags: must keep to IOB2, got 'I-x' after O in data rows 2, 3",
        ),
        (
            [["B-x", "O"], ["B-x", "I-x"], ["O", "I-x"]],
            "auto",
            "data.tags: must keep to IOB2, got 'I-x' after O in data row 3; name the scheme in data.scheme, or mend"
            " these tags",
        ),
        ([["B-x", "I-x"]], "BIOES", "data.tags: must keep to BIOES, got 'B-x' after the beginning in data row 1"),
        (
            [["B-x", "E-x"]],
            "IOB2",
            "data.tags: must have no prefixes but B, I, as data.scheme is IOB2, got E",
        ),
        (
            [["B-x", "E-x", "U-x"]],
            None,
            "data.tags: must have the prefixes of one scheme (IOB1, IOB2, BIOES, BILOU), got B, E, U",
        ),
        (
            [["O"], ["O", "PER"], ["LOC"]],
            None,
            "data.tags: must be O, or a prefix and a type as in B-PER, got 'PER' in data row 2, and 1 more such tags",
        ),
    ],
)
def test_what_breaks_it_is_one_line(sentences: list[list[str]], declared: str | None, line: str) -> None:
    with pytest.raises(DataError) as caught:
        scheme_of(sentences, range(1, len(sentences) + 1), declared)
    assert caught.value.mistakes == (line,)
