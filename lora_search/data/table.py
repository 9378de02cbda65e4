"""What a source gives: columns as it has them, the names it has for class numbers, and what should be known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Table:
    """Some columns of a source.

    Attributes:
        columns: column name -> values, one per data row. ``None`` is a missing value.
        class_names: column name -> the names of its classes by number, for columns of classes (``ClassLabel`` of
            datasets) or lists of them; their values are names already.
        notes: how the source was read where that is not the usual way, as sentences.
    """

    columns: Columns
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def named_classes(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Class numbers, or lists of them, as names. -1 is how datasets says "no label"; a number without a name stays
    one."""
    return [_named(value, names) for value in values]


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return named_classes(value, names)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value < 0:
        return None
    return names[value] if value < len(names) else value
