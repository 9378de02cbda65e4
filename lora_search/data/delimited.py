"""Columns of csv and tsv: every field a string, every row accounted for.

Nothing is turned into a number, and ``NA`` or ``null`` are two letters and four. Quotes are read strictly (RFC 4180:
around a field, doubled inside it), for a reader that makes the best of a stray one lets whole rows vanish into a text.
Where a file is not of that kind it may be of another that is as certain: quotes written ``\\"`` inside quoted fields;
in tsv, quotes that are letters like others. If it is neither, the line is named and nothing is read.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lora_search.data.table import Table
from lora_search.data.wording import counted, require_columns
from lora_search.errors import DataError, Mistake
from lora_search.spec.quoting import quoted

_KEY = "data.train"
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_ESCAPE = re.compile(r'\\(["\\])')


@dataclass(frozen=True)
class _Rows:
    """Records as fields, the header first, and the lines each begins and ends in, from 1."""

    fields: list[list[str]]
    starts: list[int]
    ends: list[int]

    def take(self, kept: Sequence[int]) -> _Rows:
        return _Rows(
            [self.fields[index] for index in kept],
            [self.starts[index] for index in kept],
            [self.ends[index] for index in kept],
        )


def read_delimited(content: bytes, name: str, wanted: Mapping[str, str], delimiter: str) -> Table:
    """The wanted columns of a table whose first row is its header.

    Args:
        content: UTF-8 text, with or without a byte-order mark.
        name: of the file, for messages.
        wanted: key of the experiment -> column it names.
        delimiter: between fields.

    Raises:
        DataError: quotes that cannot be read with certainty, rows with more fields than the header, other separators,
            missing columns.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = content.decode("utf-8-sig")
    notes: tuple[str, ...] = ()
    try:
        rows = _read_quoted(text, name, wanted, delimiter)
    except DataError:
        other = _read_otherwise(text, name, wanted, delimiter)
        if other is None:
            raise
        rows, notes = other
    header, *records = rows.fields
    require_columns(name, header, wanted)
    places = {column: header.index(column) for column in wanted.values()}
    columns = {column: [row[place] if place < len(row) else "" for row in records] for column, place in places.items()}
    return Table(columns, notes=notes)


def _read_otherwise(
    text: str, name: str, wanted: Mapping[str, str], delimiter: str
) -> tuple[_Rows, tuple[str, ...]] | None:
    """The table as written by other rules than the usual, and what they are; None if it follows none of them."""
    if '\\"' in text:
        doubled = _ESCAPE.sub(lambda match: '""' if match[1] == '"' else "\\", text)
        try:
            return _read_quoted(doubled, name, wanted, delimiter), (
                f'{name} writes a quote inside a text as \\" and not as two; it is read so.',
            )
        except DataError:
            pass
    if delimiter == "\t":
        rows = _read_literally(text, delimiter)
        if rows is not None:
            return rows, (f"{name} has quotes that are not closed in their field; all its quotes are read as letters.",)
    return None


def _read_quoted(text: str, name: str, wanted: Mapping[str, str], delimiter: str) -> _Rows:
    lines = list(io.StringIO(text, newline=""))
    rows = _without_blank(_parsed(lines, name, delimiter), lines)
    if not rows.fields:
        raise DataError.about(_KEY, f"{name} must hold a header and rows", got="an empty file")
    _check_separator(rows.fields[0], name, delimiter)
    _check_lengths(rows, name, delimiter)
    _check_nothing_swallowed(rows, lines, name, wanted.get("data.label"), delimiter)
    return rows


def _read_literally(text: str, delimiter: str) -> _Rows | None:
    """Quotes as letters, for a table that has the same number of fields in every line."""
    lines = [line.rstrip("\r\n") for line in io.StringIO(text, newline="")]
    numbers = [number for number, line in enumerate(lines, start=1) if delimiter in line or line.strip()]
    fields = [lines[number - 1].split(delimiter) for number in numbers]
    if len({len(row) for row in fields}) != 1 or len(fields[0]) < 2:
        return None
    return _Rows(fields, numbers, numbers)


def _parsed(lines: Sequence[str], name: str, delimiter: str) -> _Rows:
    rows = _Rows([], [], [])
    start = 1
    with _long_fields():
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                rows.fields.append(fields)
                rows.starts.append(start)
                rows.ends.append(reader.line_num)
                start = reader.line_num + 1
        except csv.Error as error:
            unclosed = "end of data" in str(error)
            raise DataError(_about_quotes(name, start, reader.line_num, unclosed)) from error
    return rows


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module takes fields of any length inside the block; its limit is the process's."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _without_blank(rows: _Rows, lines: Sequence[str]) -> _Rows:
    """Less the lines that hold nothing, which are no rows."""
    kept = [index for index, row in enumerate(rows.fields) if len(row) > 1 or lines[rows.starts[index] - 1].strip()]
    return rows if len(kept) == len(rows.fields) else rows.take(kept)


def _check_separator(header: list[str], name: str, delimiter: str) -> None:
    """A text and its label take two columns; one that holds another separator was meant as several."""
    if len(header) == 1 and any(other in header[0] for other in _SEPARATORS if other != delimiter):
        rule = f"{name} must have its columns separated by {_SEPARATORS[delimiter]}"
        raise DataError.about(_KEY, rule, got=f"the header {quoted(header[0])}")


def _check_lengths(rows: _Rows, name: str, delimiter: str) -> None:
    width = len(rows.fields[0])
    longer = [index for index, row in enumerate(rows.fields) if len(row) > width]
    if longer:
        first = longer[0]
        others = f", and more than {width} in {counted(len(longer) - 1, 'other')}" if len(longer) > 1 else ""
        separator = _SEPARATORS[delimiter].removesuffix("s")
        raise DataError.about(
            _KEY,
            f"the rows of {name} must have at most the {counted(width, 'field')} of its header",
            got=f"{len(rows.fields[first])} in line {rows.starts[first]}{others}",
            hint=f"a text with a {separator} in it must be in quotes",
        )


def _check_nothing_swallowed(rows: _Rows, lines: Sequence[str], name: str, label: str | None, delimiter: str) -> None:
    """Of the lines of a text, one at most looks like a row of the table: its own. More are rows that a quote took in.

    A line looks like a row if it has the header's number of fields and, where a column of labels is known, a label of
    other rows.
    """
    header = rows.fields[0]
    place = header.index(label) if label in header else None
    long = [index for index in range(1, len(rows.fields)) if rows.ends[index] > rows.starts[index]]
    if not long or len(header) < 2:
        return
    known = set()
    if place is not None:
        known = {row[place] for row in rows.fields[1:] if len(row) > place and "\n" not in row[place]} - {""}

    def is_row(line: str) -> bool:
        fields = line.rstrip("\r\n").split(delimiter)
        return len(fields) == len(header) and (place is None or fields[place].strip('"') in known)

    for index in long:
        first, last = rows.starts[index], rows.ends[index]
        taken = sum(is_row(line) for line in lines[first - 1 : last])
        if taken > 1 and (place is not None or taken >= last - first):
            quotes = _about_quotes(name, first, last)
            got = f"{quotes.got} and takes in {counted(taken - 1, 'row')}"
            raise DataError(replace(quotes, got=got, hint="if that is the text, save the data as jsonl or parquet"))


def _about_quotes(name: str, first: int, last: int, unclosed: bool = False) -> Mistake:
    rule = f"a quote that begins a field of {name} must be closed at its end and doubled inside it"
    if unclosed:
        return Mistake(rule, _KEY, f"one in line {first} that is never closed")
    if first == last:
        return Mistake(rule, _KEY, f"a field in line {first} that goes on after its quote")
    return Mistake(rule, _KEY, f"one in line {first} that runs on to line {last}")
