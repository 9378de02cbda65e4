"""Sentences of a CoNLL file: a word per line with its columns, a blank line after each sentence.

Columns are separated by tabs where a line has one, else by spaces; a no-break space is a character, and so is every
other line end than those of files. The word is the first column and the tag the last
unless the experiment names others by number, from 0. ``-DOCSTART-`` lines begin documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_search.data.table import Table
from lora_search.errors import DataError
from lora_search.spec.quoting import quoted

SUFFIXES = (".conll", ".txt", ".bio", ".iob", ".iob2")
DOCUMENT = "document"
"""The column of document numbers, where the file tells documents apart."""

_DOCSTART = "-DOCSTART-"
_LINE_END, _SPACES = re.compile(r"\r\n|\r|\n"), re.compile(" +")
_BLANKS = " \t"


def read_conll(content: bytes, name: str, tokens: str | None, tags: str | None) -> Table:
    """The sentences of a file as columns ``tokens``, ``tags`` and, if there are documents, ``DOCUMENT``.

    Args:
        content: UTF-8 text.
        name: of the file, for messages.
        tokens, tags: the columns by number as the experiment names them; None for the first and the last.

    Raises:
        DataError: not UTF-8, a column that is no number, or lines that have too few columns.
    """
    places = _place("data.tokens", tokens, 0), _place("data.tags", tags, -1)
    try:
        lines = _LINE_END.split(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        got = f"{name} with other bytes at position {error.start}"
        raise DataError.about("data.train", "must be UTF-8 text", got=got) from error
    sentences: list[tuple[list[str], list[str], int]] = []
    words: list[str] = []
    marks: list[str] = []
    document = 0
    for number, line in enumerate((*lines, ""), start=1):
        fields = line.rstrip(_BLANKS).split("\t") if "\t" in line else _SPACES.split(line.strip(_BLANKS))
        begins_document = fields[0] == _DOCSTART
        if not line.strip(_BLANKS) or begins_document:
            if words:
                sentences.append((words, marks, document))
                words, marks = [], []
            document += begins_document
            continue
        words.append(_field(fields, places[0], number, name, "data.tokens"))
        marks.append(_field(fields, places[1], number, name, "data.tags"))
    columns: dict[str, list[object]] = {
        "tokens": [words for words, _, _ in sentences],
        "tags": [marks for _, marks, _ in sentences],
    }
    if document:
        columns[DOCUMENT] = [str(document) for _, _, document in sentences]
    return Table(columns)


def _place(key: str, column: str | None, default: int) -> int:
    if column is None:
        return default
    if not column.isdecimal():
        raise DataError.about(key, "must be the number of a column, from 0, of a CoNLL file", got=quoted(column))
    return int(column)


def _field(fields: Sequence[str], place: int, number: int, name: str, key: str) -> str:
    if len(fields) < 2 or place >= len(fields):
        needed = max(2, place + 1)
        got = f"{len(fields)} in line {number} of {name}"
        raise DataError.about(key, f"every word must have {needed} columns or more", got=got)
    return fields[place].strip(_BLANKS)
