"""Columns of csv and tsv: every field a string, every row accounted for.

Nothing is turned into a number, and ``NA`` or ``null`` are two letters and four. Quotes are read strictly (RFC 4180:
around a field, doubled inside it), for a reader that makes the best of a stray one lets whole rows vanish into a text.
Where a file is not of that kind it may be of another that is as certain: quotes written ``\\"`` inside quoted fields;
in tsv, quotes that are letters like others. If it is neither, the line is named and nothing is read. A first line that
tells Excel the separator (``sep=;``) tells it here, and is no header.
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
_NUMBER = re.compile(r"\s*[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?\s*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SAID_SEPARATOR = re.compile(r'"?sep=([,\t;|])"?(?=[\r\n])', re.IGNORECASE)
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
    said = _SAID_SEPARATOR.match(text)
    if said is not None:
        delimiter, text = said[1], text[said.end() :]  # what is left of the line is blank: lines keep their numbers
    try:
        rows, notes = _read_quoted(text, name, wanted, delimiter)
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
            rows, notes = _read_quoted(doubled, name, wanted, delimiter)
        except DataError:
            pass
        else:
            return rows, (f'{name} writes a quote inside a text as \\" and not as two; it is read so.', *notes)
    if delimiter == "\t":
        literal = _read_literally(text, delimiter)
        if literal is not None:
            return literal, (
                f"{name} has quotes that are not closed in their field; all its quotes are read as letters.",
            )
    return None


def _read_quoted(text: str, name: str, wanted: Mapping[str, str], delimiter: str) -> tuple[_Rows, tuple[str, ...]]:
    """The table by the usual rules, and what is in doubt of it."""
    lines = list(io.StringIO(text, newline=""))
    rows = _without_blank(_parsed(lines, name, delimiter), lines)
    if not rows.fields:
        raise DataError.about(_KEY, f"{name} must hold a header and rows", got="an empty file")
    _check_separator(rows.fields[0], name, delimiter)
    _check_lengths(rows, name, delimiter)
    return rows, _check_nothing_swallowed(rows, lines, name, wanted, delimiter)


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


def _check_nothing_swallowed(
    rows: _Rows, lines: Sequence[str], name: str, wanted: Mapping[str, str], delimiter: str
) -> tuple[str, ...]:
    """Tell texts of several lines from rows that a stray quote took in.

    Of a stray quote, its first line is a whole row, and so are its last one and most of those between. A line looks
    like a row if it has the header's number of fields, none of which but the first begins with a blank (after a comma
    in a sentence there is one), and in the columns of labels the labels of other rows. Where there is no such column,
    two lines that look like rows may be a text as well; three are none.

    Returns:
        what is in doubt, as sentences.

    Raises:
        DataError: rows were taken in.
    """
    header = rows.fields[0]
    long = [index for index in range(1, len(rows.fields)) if rows.ends[index] > rows.starts[index]]
    if not long or len(header) < 2:
        return ()
    columns = [column for key, column in wanted.items() if key.startswith("data.label") and column in header]
    labels = {place: _Labels.of(rows, place) for place in map(header.index, columns)}
    spaced = sum(_has_blanks(row) for row in rows.fields) * 2 > len(rows.fields)

    def is_row(fields: Sequence[str]) -> bool:
        whole = len(fields) == len(header) and (spaced or not _has_blanks(fields))
        return whole and all(known.has(fields[place].strip('"')) for place, known in labels.items())

    for index in long:
        first, last = rows.starts[index], rows.ends[index]
        head, tail = _edges(rows.fields[index], delimiter)
        between = [line.rstrip("\r\n") for line in lines[first : last - 1]]
        taken = sum(is_row(line.split(delimiter)) for line in between)
        others = sum(bool(line.strip()) for line in between) - taken
        if is_row(head) and is_row(tail) and taken >= others and (labels or taken):
            quotes = _about_quotes(name, first, last)
            got = f"{quotes.got} and takes in {counted(taken + 1, 'row')}"
            raise DataError(replace(quotes, got=got, hint="if that is the text, save the data as jsonl or parquet"))
    if labels:
        return ()
    where = f"lines {rows.starts[long[0]]} to {rows.ends[long[0]]}"
    having = counted(len(long), "row has a text", "rows have texts")
    return (f"{having} of several lines in {name}, the first in {where}.",)


@dataclass(frozen=True)
class _Labels:
    """What rows of one line have in a column of labels.

    Attributes:
        known: all of it.
        numbers: whether these are numbers, of which others are labels too.
    """

    known: frozenset[str]
    numbers: bool

    @classmethod
    def of(cls, rows: _Rows, place: int) -> _Labels:
        short = (row[place] for row in rows.fields[1:] if len(row) > place)
        known = frozenset(label for label in short if label and "\n" not in label)
        return cls(known, all(_NUMBER.fullmatch(label) for label in known))

    def has(self, label: str) -> bool:
        return label in self.known or (self.numbers and _NUMBER.fullmatch(label) is not None)


def _has_blanks(fields: Sequence[str]) -> bool:
    return any(field[:1].isspace() for field in fields[1:])


def _edges(fields: Sequence[str], delimiter: str) -> tuple[list[str], list[str]]:
    """The first and the last line of a row of several lines, as rows of their own."""
    several = [place for place, field in enumerate(fields) if _LINE_END.search(field)]
    first, last = several[0], several[-1]
    begun, ended = _LINE_END.split(fields[first])[0], _LINE_END.split(fields[last])[-1]
    return [*fields[:first], *begun.split(delimiter)], [*ended.split(delimiter), *fields[last + 1 :]]


def _about_quotes(name: str, first: int, last: int, unclosed: bool = False) -> Mistake:
    rule = f"a quote that begins a field of {name} must be closed at its end and doubled inside it"
    if unclosed:
        return Mistake(rule, _KEY, f"one in line {first} that is never closed")
    if first == last:
        return Mistake(rule, _KEY, f"a field in line {first} that goes on after its quote")
    return Mistake(rule, _KEY, f"one in line {first} that runs on to line {last}")
