"""The rule of thumb: bits of the answers against room in an adapter."""

import pytest

from lora_search.study.capacity import rule_of_thumb


@pytest.mark.parametrize(
    ("smallest", "largest", "said"),
    [
        (500, 9000, "the smallest adapter has as many, so room is no reason for a larger one"),
        (100, 9000, "smaller adapters may have no room for all of it"),
        (100, 499, "the largest adapter has fewer, so larger ones than are searched may score higher"),
    ],
)
def test_what_is_said(smallest, largest, said):
    found = rule_of_thumb(1000.0, smallest, largest)
    assert found == f"the answers hold at most 1,000 bits, a parameter about 2, so 500 parameters have room: {said}"
