"""Entities in a sequence of tags, read in two ways: strictly by the rules of a scheme, and as the CoNLL script reads.

A tag is ``O``, outside of every entity, or a prefix and a type: ``B-PER``. The schemes:

- IOB2: every entity begins with B and goes on with I.
- IOB1: I goes on too, and begins; B begins an entity right after another of its type.
- BIOES: an entity of one word is S; others begin with B, go on with I, end with E. BILOU is the same with U and L.

Read strictly, what breaks the rules is no entity; these are the entities of seqeval's strict mode. The lenient reading
makes an entity of it where it can, as conlleval does and seqeval by default: an I after O begins one. Those two do not
know BILOU's L and U, which are E and S here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

Scheme = Literal["IOB1", "IOB2", "BIOES", "BILOU"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
PREFIXES: Mapping[Scheme, str] = {"IOB1": "IB", "IOB2": "BI", "BIOES": "BIES", "BILOU": "BILU"}
"""The prefixes a scheme has beside O."""

Span = tuple[str, int, int]
"""(type, first word, word after the last)."""
Part = tuple[str, str]
"""(prefix, type) of a tag; the type of O is empty."""

_BIOES_OF_BILOU = {"L": "E", "U": "S"}
_Rules = Mapping[tuple[str, str], Literal["any", "same", "other"]]
_INSIDE: _Rules = {("B", "I"): "same", ("I", "I"): "same"}
_INSIDE_BIOES: _Rules = {**_INSIDE, ("B", "E"): "same", ("I", "E"): "same"}
_START_IOB1: _Rules = {
    ("O", "I"): "any",
    ("I", "I"): "other",
    ("B", "I"): "any",
    ("I", "B"): "same",
    ("B", "B"): "same",
}


def part_of(tag: str) -> Part:
    """A tag in its two parts; those of BILOU as those of BIOES.

    Raises:
        ValueError: it is neither O nor a prefix, a hyphen and a type.
    """
    if tag == "O":
        return "O", ""
    prefix, hyphen, kind = tag.partition("-")
    if not hyphen or not kind or len(prefix) != 1 or prefix not in "BIESLU":
        raise ValueError(tag)
    return _BIOES_OF_BILOU.get(prefix, prefix), kind


def strict_spans(parts: Sequence[Part], scheme: Scheme) -> set[Span]:
    """The entities of a sequence that keep to the rules."""
    inside = _INSIDE_BIOES if scheme in ("BIOES", "BILOU") else _INSIDE
    found: set[Span] = set()
    before: Part = ("O", "")
    place = 0
    while place < len(parts):
        start = place
        place += 1
        if _starts(before, parts[start], scheme):
            while place < len(parts) and _holds(inside, parts[place - 1], parts[place]):
                place += 1
            following: Part = parts[place] if place < len(parts) else ("O", "")
            if _ends(parts[place - 1], following, scheme):
                found.add((parts[start][1], start, place))
        before = parts[place - 1]
    return found


def lenient_spans(parts: Sequence[Part]) -> set[Span]:
    """The entities of a sequence as conlleval reads them, of any scheme."""
    found: set[Span] = set()
    start = 0
    before: Part = ("O", "")
    for place, part in enumerate((*parts, ("O", ""))):
        changed = before[1] != part[1]
        if before[0] != "O" and (before[0] in "ES" or part[0] in "BSO" or changed):
            found.add((before[1], start, place))
        if part[0] != "O" and (part[0] in "BS" or before[0] in "ESO" or changed):
            start = place
        before = part
    return found


def breach(parts: Sequence[Part], scheme: Scheme) -> int | None:
    """The first word whose tag breaks the rules of a scheme; None where all keep to them."""
    covered = {word for _, start, stop in strict_spans(parts, scheme) for word in range(start, stop)}
    return next((word for word, part in enumerate(parts) if part[0] != "O" and word not in covered), None)


def _starts(before: Part, part: Part, scheme: Scheme) -> bool:
    if scheme == "IOB1":
        return _holds(_START_IOB1, before, part)
    return part[0] == "B" or (part[0] == "S" and scheme != "IOB2")


def _ends(last: Part, following: Part, scheme: Scheme) -> bool:
    """Whether an entity may end with ``last`` where ``following`` does not go on with it."""
    if scheme == "IOB1":
        return not (last[0] == following[0] == "B" and last[1] != following[1])
    return scheme == "IOB2" or last[0] in "ES"


def _holds(rules: _Rules, before: Part, part: Part) -> bool:
    rule = rules.get((before[0], part[0]))
    return rule is not None and (rule == "any" or (rule == "same") == (before[1] == part[1]))
