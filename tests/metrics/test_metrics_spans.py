"""Entities in tags, against seqeval's own readings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from lora_search.metrics.spans import PREFIXES, SCHEMES, Scheme, breach, lenient_spans, part_of, strict_spans

THEIRS = {"IOB1": IOB1, "IOB2": IOB2, "BIOES": IOBES, "BILOU": BILOU}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def tags_of(scheme: Scheme) -> list[str]:
    return ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in ("x", "y-z"))]


@every_scheme
def test_ten_thousand_sequences_have_the_entities_that_seqeval_finds(scheme: Scheme) -> None:
    draw, tags = random.Random(0), tags_of(scheme)
    for _ in range(10_000):
        sequence = draw.choices(tags, k=draw.randint(1, 9))
        parts = [part_of(tag) for tag in sequence]
        strict = {(e.tag, e.start, e.end) for e in Entities([sequence], THEIRS[scheme]).entities[0]}
        assert strict_spans(parts, scheme) == strict, sequence
        # seqeval's default knows no L and U
        known = [tag.replace("L-", "E-").replace("U-", "S-") for tag in sequence]
        lenient = {(kind, first, last + 1) for kind, first, last in get_entities(known)}
        assert lenient_spans(parts) == lenient, sequence


@every_scheme
@given(data=st.data())
def test_what_keeps_to_the_rules_is_read_alike_both_ways(scheme: Scheme, data: st.DataObject) -> None:
    parts = [part_of(tag) for tag in data.draw(st.lists(st.sampled_from(tags_of(scheme)), max_size=8))]
    if breach(parts, scheme) is None:
        assert strict_spans(parts, scheme) == lenient_spans(parts)


def test_by_hand() -> None:
    parts = [part_of(tag) for tag in ("B-PER", "I-PER", "O", "I-LOC", "B-LOC")]
    assert strict_spans(parts, "IOB2") == {("PER", 0, 2), ("LOC", 4, 5)}
    assert lenient_spans(parts) == {("PER", 0, 2), ("LOC", 3, 4), ("LOC", 4, 5)}
    assert breach(parts, "IOB2") == 3
    assert breach(parts[:3], "IOB2") is None


@pytest.mark.parametrize("tag", ["PER", "", "B-", "X-PER", "BB-PER", "B_PER", "-PER"])
def test_other_tags_are_none(tag: str) -> None:
    with pytest.raises(ValueError, match=tag or "$"):
        part_of(tag)
