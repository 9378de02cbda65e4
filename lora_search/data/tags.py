"""Tags of words: which scheme they follow, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from lora_search.data.wording import rows_phrase
from lora_search.errors import DataError
from lora_search.metrics.spans import PREFIXES, SCHEMES, Part, Scheme, breach, part_of
from lora_search.spec.quoting import quoted

_KEY = "data.tags"


def scheme_of(sentences: Sequence[Sequence[str]], rows: Sequence[int], declared: str | None) -> Scheme:
    """The scheme that every sentence keeps to.

    Args:
        sentences: the tags of each.
        rows: their data row numbers, for messages.
        declared: ``data.scheme``; ``"auto"`` or None looks for one.

    Raises:
        DataError: tags without a prefix, or such as break the rules of every scheme, or of the declared one.
    """
    parts = _parts(sentences, rows)
    used = {tag[0] for tags in sentences for tag in tags if tag != "O"}
    wanted: Sequence[Scheme] = [scheme for scheme in SCHEMES if scheme == declared] or _possible(used)
    if not wanted:
        rule = f"must have the prefixes of one scheme ({', '.join(SCHEMES)})"
        raise DataError.about(_KEY, rule, got=", ".join(sorted(used)))
    foreign = used - set(PREFIXES[wanted[0]]) if len(wanted) == 1 else set()
    if foreign:
        rule = f"must have no prefixes but {', '.join(PREFIXES[wanted[0]])}, as data.scheme is {wanted[0]}"
        raise DataError.about(_KEY, rule, got=", ".join(sorted(foreign)))
    broken: dict[Scheme, list[int]] = {}
    for scheme in wanted:
        broken[scheme] = [sentence for sentence, each in enumerate(parts) if breach(each, scheme) is not None]
        if not broken[scheme]:
            return scheme
    # what is closest to right is what was meant
    closest = min(wanted, key=lambda scheme: len(broken[scheme]))
    first = broken[closest][0]
    word = breach(parts[first], closest) or 0
    before = sentences[first][word - 1] if word else "the beginning"
    raise DataError.about(
        _KEY,
        f"must keep to {closest}",
        got=f"{quoted(sentences[first][word])} after {before} in {rows_phrase([rows[one] for one in broken[closest]])}",
        hint="name the scheme in data.scheme, or mend these tags" if declared in (None, "auto") else "",
    )


def _possible(used: set[str]) -> list[Scheme]:
    """The schemes that have all these prefixes, those of fewer first; IOB2 before IOB1 where both have them."""
    order: tuple[Scheme, ...] = ("IOB2", "IOB1", "BIOES", "BILOU")
    possible = [scheme for scheme in order if used <= set(PREFIXES[scheme])]
    return [scheme for scheme in possible if len(PREFIXES[scheme]) == len(PREFIXES[possible[0]])]


def _parts(sentences: Sequence[Sequence[str]], rows: Sequence[int]) -> list[list[Part]]:
    known: dict[str, Part] = {"O": ("O", "")}
    wrong: dict[str, list[int]] = {}
    for row, tags in zip(rows, sentences, strict=True):
        for tag in tags:
            if tag not in known and tag not in wrong:
                try:
                    known[tag] = part_of(tag)
                except ValueError:
                    wrong[tag] = []
            if tag in wrong and row not in wrong[tag][-1:]:
                wrong[tag].append(row)
    if wrong:
        tag, where = next(iter(wrong.items()))
        others = f", and {len(wrong) - 1} more such tags" if len(wrong) > 1 else ""
        raise DataError.about(
            _KEY,
            "must be O, or a prefix and a type as in B-PER",
            got=f"{quoted(tag)} in {rows_phrase(where)}{others}",
        )
    return [[known[tag] for tag in tags] for tags in sentences]
