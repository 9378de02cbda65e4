"""The labelled examples of ``[data]``, read from wherever they are, as strings and nothing but strings.

What may become a string is decided here, once for all formats: texts must be strings where they are stored; labels and
groups may be whole numbers or booleans, which become their decimal or word (1 -> ``"1"``), and groups may be dates and
times, which become their ISO form. A missing value becomes ``""``; which of them are mistakes is for ``examples`` to
say, after labels were dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from typing import Any

from lora_search.data.files import may_have_splits, read_file
from lora_search.data.hub import read_hub
from lora_search.data.table import Table
from lora_search.data.wording import rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.spec.experiment import DataSpec
from lora_search.spec.locations import HubId, resolve
from lora_search.spec.quoting import quoted, quoted_path

_DIGITS = re.compile("[0-9]")


@dataclass(frozen=True)
class RawExamples:
    """One entry per data row, ``""`` where the source has nothing.

    Attributes:
        texts, pairs, labels, groups: the values of the columns; ``pairs`` and ``groups`` are None where none is asked
            for.
        rows: data row numbers, from 1.
        label_names: the names of the classes by number, where the source has them.
        notes: how the source was read where that is not the usual way, as sentences.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None
    rows: tuple[int, ...]
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Iterable[int]) -> RawExamples:
        """The examples at these positions, in this order."""
        chosen = list(indices)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[index] for index in chosen)

        return replace(
            self,
            texts=pick(self.texts),
            pairs=None if self.pairs is None else pick(self.pairs),
            labels=pick(self.labels),
            groups=None if self.groups is None else pick(self.groups),
            rows=tuple(self.rows[index] for index in chosen),
        )


@dataclass(frozen=True)
class ReadLabels:
    """What the columns of labels hold.

    Attributes:
        values: a string for each data row, blank where there is no label.
        mistakes: values that are no labels.
        names: of the classes by number, where the source has them.
        notes: how they were read, as sentences.
    """

    values: tuple[str, ...]
    mistakes: tuple[Mistake, ...] = ()
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def class_labels(spec: DataSpec, table: Table) -> ReadLabels:
    """Names of classes."""
    column = spec.label_columns[0]
    values, mistakes = as_strings("data.label", column, table.columns[column], name_of, "strings or whole numbers")
    return ReadLabels(values, mistakes, table.class_names.get(column, ()))


def number_labels(spec: DataSpec, table: Table) -> ReadLabels:
    """Numbers, each as Python writes a float."""
    column = spec.label_columns[0]
    return ReadLabels(*as_strings("data.label", column, table.columns[column], _number, "finite numbers"))


def read_table(spec: DataSpec, read_labels: Callable[[DataSpec, Table], ReadLabels] = class_labels) -> RawExamples:
    """Read every row of the source.

    Args:
        spec: ``[data]``.
        read_labels: from the columns of labels.

    Raises:
        DataError: nothing there, unreadable, no such column, values that are no texts or no labels, or no rows at all.
    """
    table = _read_columns(spec)
    columns = table.columns
    mistakes: list[Mistake] = []

    def converted(key: str, column: str, convert: Callable[[Any], str | None], rule: str) -> tuple[str, ...]:
        values, refused = as_strings(f"data.{key}", column, columns[column], convert, rule)
        mistakes.extend(refused)
        return values

    texts = converted("text", spec.text, _text, "strings")
    pairs = None if spec.text_pair is None else converted("text_pair", spec.text_pair, _text, "strings")
    labels = read_labels(spec, table)
    mistakes.extend(labels.mistakes)
    groups = None if spec.group is None else converted("group", spec.group, _group, "strings, whole numbers or dates")
    if mistakes:
        raise DataError(mistakes)
    if not labels.values:
        raise DataError.about("data.train", "must hold examples", got=f"no rows in {quoted_path(spec.train)}")
    return RawExamples(
        texts,
        pairs,
        labels.values,
        groups,
        rows=tuple(range(1, len(labels.values) + 1)),
        label_names=labels.names,
        notes=(*table.notes, *labels.notes),
    )


def _read_columns(spec: DataSpec) -> Table:
    labels = spec.label_columns
    keys = ["label"] if len(labels) == 1 else [f"label[{place}]" for place in range(len(labels))]
    named = {
        "text": spec.text,
        "text_pair": spec.text_pair,
        **dict(zip(keys, labels, strict=True)),
        "group": spec.group,
    }
    wanted = {f"data.{key}": column for key, column in named.items() if column is not None}
    read = {wanted[key]: key for key in ("data.text_pair", "data.text") if key in wanted}
    mistakes = [
        Mistake(f"must not be the column the model reads ({read[column]})", f"data.{key}", quoted(column))
        for key, column in zip(keys, labels, strict=True)
        if column in read
    ]
    if mistakes:
        raise DataError(mistakes)
    return columns_of(spec, wanted)


def columns_of(spec: DataSpec, wanted: Mapping[str, str]) -> Table:
    """Some columns of the source, wherever it is.

    Args:
        spec: ``[data]``.
        wanted: key of the experiment -> column it names.

    Raises:
        DataError: nothing there, unreadable, no such column, or a key that has no meaning for this kind of source.
    """
    place = resolve(spec.train, key="data.train", error=DataError)
    if isinstance(place, HubId):
        return read_hub(place.name, spec.config, spec.split, wanted)
    split = None if spec.split == DataSpec.model_fields["split"].default else spec.split
    mistakes: list[Mistake] = []
    if spec.config is not None:
        rule = "must be left out unless data.train is hub:OWNER/NAME"
        mistakes.append(Mistake(rule, "data.config", quoted(spec.config)))
    if split is not None and not may_have_splits(place):
        rule = (
            "must be left out unless data.train has splits (hub:OWNER/NAME, a folder of save_to_disk, or .json with a"
            " table per split)"
        )
        mistakes.append(Mistake(rule, "data.split", quoted(split)))
    if mistakes:
        raise DataError(mistakes)
    return read_file(place, wanted, split)


def as_strings(
    key: str, column: str, values: Sequence[Any], convert: Callable[[Any], str | None], rule: str
) -> tuple[tuple[str, ...], tuple[Mistake, ...]]:
    """Values as strings, and a mistake if some cannot be.

    Args:
        key, column: of the experiment, and the column it names.
        values: of the column; a missing one becomes blank.
        convert: a value to a string, None where it is none.
        rule: what the column must hold.
    """
    strings = ["" if _is_missing(value) else convert(value) for value in values]
    refused = [index for index, string in enumerate(strings) if string is None]
    return tuple(string or "" for string in strings), tuple(_refusal(key, column, rule, values, refused))


def _refusal(key: str, column: str, rule: str, values: Sequence[Any], refused: Sequence[int]) -> list[Mistake]:
    if not refused:
        return []
    example = values[refused[0]]
    named = f"{quoted(example)} ({type(example).__name__})"
    kind = "text that is not valid Unicode" if isinstance(example, str) and not _is_unicode(example) else named
    rows = rows_phrase([index + 1 for index in refused])
    return [Mistake(f"column {quoted(column)} must hold {rule}", key, f"{kind} in {rows}")]


def _is_missing(value: Any) -> bool:
    """None, NaN, or pandas' NaT, which is a moment that is none."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, date) and value != value)
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and _is_unicode(value) else None


def name_of(value: Any) -> str | None:
    """A label or a group; None where it is none.

    1.0 is 1: a table's writer may have turned integers into floats because one was missing.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    return _text(value)


def _number(value: Any) -> str | None:
    """A number, or the text of one; blank text is a missing value, and so is NaN."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return ""
        if not _DIGITS.search(text) or "_" in text:  # float reads "nan", "inf" and "1_0" too
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return repr(number) if math.isfinite(number) else None


def _group(value: Any) -> str | None:
    """A group may be a day or a moment too (``datetime`` is a ``date``, and so is pandas' ``Timestamp``)."""
    return value.isoformat() if isinstance(value, date | time) else name_of(value)


def _is_unicode(value: str) -> bool:
    """False for lone surrogates, which JSON can spell and no tokenizer can read."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
