"""Labels as names of classes: their order, the ones that look alike, and columns that hold no classes at all.

Nothing here changes a label: two that look alike stay two, and are told.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal

from lora_search.data.wording import counted
from lora_search.errors import Mistake
from lora_search.spec.quoting import quoted

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?|[+-]?\.\d+")
_NUMBER_WIDTH = 300  # digits that a float can hold
# what shows as nothing and is no space, no control and no format character by Unicode's categories
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_MISSING = ("nan", "NaN", "None", "NaT", "<NA>", "NA", "N/A", "n/a", "#N/A", "null", "NULL")
_PASSES = 2  # what was between two characters may have kept them from becoming one
_LEAST_CLASSES = 10
_NAMES_SHOWN = 3
_GROUPS_SHOWN = 5
_NAME_WIDTH = 40


def in_order(labels: Iterable[str], stored: Sequence[str] = ()) -> tuple[str, ...]:
    """The distinct labels in the order of their classes.

    Args:
        labels: as often as they occur.
        stored: the names the source has, by number; those of them that occur come first, in this order.

    Returns:
        numbers by their value (10 after 2) where all labels are numbers, others as text.
    """
    distinct = set(labels)
    first = [name for name in dict.fromkeys(stored) if name in distinct]
    rest = distinct.difference(first)
    if all(_is_number(label) for label in rest):
        return (*first, *sorted(rest, key=lambda label: (float(label), label)))
    return (*first, *sorted(rest))


def plain_form(label: str) -> str:
    """What is left of a label when case, spaces, invisible characters, ways to write a letter and ways to write a
    number (1, 1.0, 01) are put aside; ``""`` if nothing can be seen of it."""
    seen = plain_text(plain_text(label).replace(" ", ""))  # spaces too may have kept letters apart
    if not _is_number(seen):
        return seen
    exact = Context(prec=_NUMBER_WIDTH)
    return f"{exact.normalize(exact.add(Decimal(seen), 0)):f}"  # -0 + 0 is 0


def plain_text(text: str) -> str:
    """What is left of a text when case, ways to write a letter and to write a space, and invisible characters are put
    aside: words with single spaces between them."""
    for _ in range(_PASSES):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        for character in filter(_is_invisible, set(folded)):
            folded = folded.replace(character, "")
        text = " ".join(folded.split())
    return text


def lookalikes(counts: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """Labels that have one plain form: groups of two or more, the most frequent label first."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        groups[plain_form(label)].append(label)
    return tuple(
        tuple(sorted(group, key=lambda label: (-counts[label], label))) for group in groups.values() if len(group) > 1
    )


def lookalikes_sentence(groups: Sequence[Sequence[str]], counts: Mapping[str, int]) -> str:
    """Which labels look alike, with how many examples each has."""
    return (
        "Warning: labels that differ only in case, spaces, invisible characters or the way a number is written are"
        f" labels of their own: {_shown(groups, counts)}. If they mean the same, make them one in the data."
    )


def group_lookalikes_sentence(groups: Sequence[Sequence[str]]) -> str:
    """Which of the user's groups look alike, as ``lookalikes`` finds them too."""
    return (
        "Warning: groups that differ only in case, spaces, invisible characters or the way a number is written are"
        f" groups of their own, and may be in different folds: {_shown(groups)}. If they mean the same, make them"
        " one in the data."
    )


def written_as_missing(counts: Mapping[str, int]) -> dict[str, int]:
    """Of these labels, groups or texts those that programs write where there is none: ``str()`` of a missing value,
    mostly."""
    return {value: count for value, count in counts.items() if value.strip() in _MISSING}


def mistake_of_many(counts: Mapping[str, int], column: str) -> Mistake | None:
    """That a column holds no classes, since most rows have a label of their own; None if it may hold classes."""
    single = sum(count == 1 for count in counts.values())
    examples = sum(counts.values())
    if len(counts) < _LEAST_CLASSES or 2 * single < examples:
        return None
    some = ", ".join(quoted(label, _NAME_WIDTH) for label in list(counts)[:_NAMES_SHOWN])
    return Mistake(
        "must name classes, each of several rows",
        "data.label",
        f"{len(counts)} labels for {examples} rows in column {quoted(column)} ({some}, ...): nearly every row has a"
        " label of its own",
        hint="is it a regression target, or are data.text and data.label swapped?",
    )


def _shown(groups: Sequence[Sequence[str]], counts: Mapping[str, int] | None = None) -> str:
    """The first names of the first groups, with their counts where there are any."""
    behind = {} if counts is None else {name: f" ({counts[name]})" for group in groups for name in group}
    shown = "; ".join(
        ", ".join(f"{quoted(name, _NAME_WIDTH)}{behind.get(name, '')}" for name in group[:_GROUPS_SHOWN])
        for group in groups[:_GROUPS_SHOWN]
    )
    more = f"; and {counted(len(groups) - _GROUPS_SHOWN, 'other group')}" if len(groups) > _GROUPS_SHOWN else ""
    return f"{shown}{more}"


def _is_number(text: str) -> bool:
    return len(text) <= _NUMBER_WIDTH and _NUMBER.fullmatch(text) is not None


def _is_invisible(character: str) -> bool:
    """Controls, format characters (zero-width ones), variation selectors and fillers; spaces are seen."""
    return not character.isspace() and (
        unicodedata.category(character) in ("Cc", "Cf") or "\ufe00" <= character <= "\ufe0f" or character in _FILLERS
    )
