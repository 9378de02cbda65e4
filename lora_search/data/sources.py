"""The labelled examples of ``[data]``, read from wherever they are, as strings and nothing but strings.

What may become a string is decided here, once for all formats: texts must be strings where they are stored; labels and
groups may be whole numbers or booleans, which become their decimal or word (1 -> ``"1"``). A missing value becomes
``""``; which of them are mistakes is for ``examples`` to say, after labels were dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_search.data.files import Columns, read_file
from lora_search.data.hub import read_hub
from lora_search.data.wording import rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.spec.experiment import DataSpec
from lora_search.spec.locations import HubId, resolve


@dataclass(frozen=True)
class RawExamples:
    """One entry per data row, ``""`` where the source has nothing. ``rows`` are data row numbers, from 1."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Iterable[int]) -> RawExamples:
        """The examples at these positions, in this order."""
        chosen = list(indices)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[index] for index in chosen)

        return RawExamples(
            texts=pick(self.texts),
            pairs=None if self.pairs is None else pick(self.pairs),
            labels=pick(self.labels),
            groups=None if self.groups is None else pick(self.groups),
            rows=tuple(self.rows[index] for index in chosen),
        )


def read_table(spec: DataSpec) -> RawExamples:
    """Read every row of the source.

    Raises:
        DataError: nothing there, unreadable, no such column, values that are no texts or no labels, or no rows at all.
    """
    columns = _read_columns(spec)
    mistakes: list[Mistake] = []

    def converted(key: str, column: str, convert: Callable[[Any], str | None], rule: str) -> tuple[str, ...]:
        values, refused = _as_strings(columns[column], convert)
        mistakes.extend(_refusal(f"data.{key}", column, rule, columns[column], refused))
        return values

    texts = converted("text", spec.text, _text, "strings")
    pairs = None if spec.text_pair is None else converted("text_pair", spec.text_pair, _text, "strings")
    labels = converted("label", spec.label, _name, "strings or whole numbers")
    groups = None if spec.group is None else converted("group", spec.group, _name, "strings or whole numbers")
    if mistakes:
        raise DataError(mistakes)
    if not labels:
        raise DataError.about("data.train", "must hold examples", got=f"no rows in {spec.train!r}")
    return RawExamples(texts, pairs, labels, groups, rows=tuple(range(1, len(labels) + 1)))


def _read_columns(spec: DataSpec) -> Columns:
    named = {"text": spec.text, "text_pair": spec.text_pair, "label": spec.label, "group": spec.group}
    wanted = {f"data.{key}": column for key, column in named.items() if column is not None}
    shown = [key for key in ("data.text", "data.text_pair") if wanted.get(key) == spec.label]
    if shown:
        raise DataError.about(
            "data.label", f"must not be the column the model reads ({shown[0]})", got=repr(spec.label)
        )
    place = resolve(spec.train, key="data.train", error=DataError)
    if isinstance(place, HubId):
        return read_hub(place.name, spec.config, spec.split, wanted)
    mistakes = [
        Mistake("must be left out unless data.train is hub:OWNER/NAME", f"data.{key}", repr(value))
        for key, value in (("config", spec.config), ("split", spec.split))
        if value != DataSpec.model_fields[key].default
    ]
    if mistakes:
        raise DataError(mistakes)
    return read_file(place, wanted)


def _as_strings(values: Sequence[Any], convert: Callable[[Any], str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Values as strings, and the indices of those that cannot be."""
    strings = ["" if _is_missing(value) else convert(value) for value in values]
    refused = [index for index, string in enumerate(strings) if string is None]
    return tuple(string or "" for string in strings), refused


def _refusal(key: str, column: str, rule: str, values: Sequence[Any], refused: Sequence[int]) -> list[Mistake]:
    if not refused:
        return []
    example = values[refused[0]]
    kind = "text that is not valid Unicode" if isinstance(example, str) else f"{example!r} ({type(example).__name__})"
    rows = rows_phrase([index + 1 for index in refused])
    return [Mistake(f"column {column!r} must hold {rule}", key, f"{kind} in {rows}")]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and _is_unicode(value) else None


def _name(value: Any) -> str | None:
    """A label or a group. 1.0 is 1: a table's writer may have turned integers into floats because one was missing."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    return _text(value)


def _is_unicode(value: str) -> bool:
    """False for lone surrogates, which JSON can spell and no tokenizer can read."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
