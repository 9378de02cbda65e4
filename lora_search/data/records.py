"""Columns of json and jsonl, in the shapes people keep tables in.

json may hold a list of objects; an object of columns (lists, or objects by row, as pandas writes them); an object of
rows; ``columns`` and ``data`` apart; or any of these under one key: ``data``, the split's name, or the only one that
holds a table. jsonl holds an object per line, and json that does is read so. In all of them ``null`` is a missing
value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from lora_search.data.table import Columns, Table
from lora_search.data.wording import listed, require_columns
from lora_search.errors import DataError
from lora_search.spec.quoting import quoted

_KEY = "data.train"
_LISTS = ("data.tokens", "data.tags", "data.messages")
"""What is a list in every row."""
_A_LIST = "a list of objects is .json"


def read_json(content: bytes, name: str, wanted: Mapping[str, str], split: str) -> Table:
    """The wanted columns of a json file.

    Args:
        content: UTF-8 text, with or without a byte-order mark.
        name: of the file, for messages.
        wanted: key of the experiment -> column it names.
        split: the key to look under, where several hold a table.

    Raises:
        DataError: no JSON, no table in it, missing columns.
        UnicodeDecodeError: it is not UTF-8.
    """

    def why(error: json.JSONDecodeError) -> str:
        return f"{error}{'; one object per line is .jsonl' if error.msg == 'Extra data' else ''}"

    text = content.decode("utf-8-sig")
    try:
        value = _parsed(text, name, why)
    except DataError:
        if not _has_objects_in_lines(text):
            raise
        return replace(read_jsonl(content, name, wanted), notes=(f"{name} is read as an object per line.",))
    found, notes = _table_in(value, name, wanted, split)
    if isinstance(found, list):
        return Table(_columns_of(enumerate(found, start=1), "item", name, wanted), notes=notes)
    return Table(_lists(found, name, wanted), notes=notes)


def read_jsonl(content: bytes, name: str, wanted: Mapping[str, str]) -> Table:
    """The wanted columns of an object per line; blank lines are no rows. As ``read_json``, with line numbers."""

    def why(error: json.JSONDecodeError) -> str:
        return f"{error.msg}{f'; {_A_LIST}' if error.doc.lstrip().startswith('[') else ''}"

    def records() -> Iterable[tuple[int, Any]]:
        for number, line in enumerate(content.decode("utf-8-sig").split("\n"), start=1):
            if not line.strip():
                continue
            record = _parsed(line, f"line {number} of {name}", why)
            if isinstance(record, list):
                raise DataError.about(_KEY, f"line {number} of {name} must be an object", got="list", hint=_A_LIST)
            yield number, record

    return Table(_columns_of(records(), "line", name, wanted))


def _has_objects_in_lines(text: str) -> bool:
    """Whether the first two lines are an object each."""
    try:
        return all(isinstance(json.loads(line), dict) for line in re.split(r"\s*\n\s*", text.strip(), maxsplit=2)[:2])
    except (ValueError, RecursionError):
        return False


def _parsed(text: str, where: str, why: Callable[[json.JSONDecodeError], str]) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError.about(_KEY, f"{where} is not JSON: {why(error)}") from error
    except RecursionError as error:
        rule, got = f"{where} must hold flat objects", "values nested too deeply to read"
        raise DataError.about(_KEY, rule, got=got) from error
    except ValueError as error:  # a whole number of thousands of digits
        rule, got = f"{where} must hold plain values", "a number of thousands of digits"
        raise DataError.about(_KEY, rule, got=got) from error


def _table_in(
    value: Any, name: str, wanted: Mapping[str, str], split: str
) -> tuple[list[Any] | Mapping[str, Any], tuple[str, ...]]:
    """The records or the columns, and where in the file they were found if that had to be looked for.

    Raises:
        DataError: nothing that is a table, or several without one of the split's name.
    """
    if isinstance(value, list):
        return value, ()
    if not isinstance(value, dict):
        got = f"{type(value).__name__} at its top"
        raise DataError.about(_KEY, f"{name} must hold a list of objects", got=got)
    table = _as_table(value, wanted)
    if table is not None:
        return table, ()
    found = {key: table for key, inner in value.items() if (table := _as_table(inner, wanted)) is not None}
    for key in (split, "data"):
        if key in found:
            return found[key], _where(name, key, found)
    if len(found) == 1:
        (key,) = found
        return found[key], _where(name, key, found)
    if found:
        raise DataError.about("data.split", f"must be one of {listed(found)} of {name}", got=quoted(split))
    got = f"an object with {listed(value) or 'no keys'}"
    raise DataError.about(_KEY, f"{name} must hold a list of objects, or of columns", got=got)


def _where(name: str, key: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    others = [other for other in found if other != key]
    beside = f"; it also has {listed(others)}" if others else ""
    return (f"The rows are those under {quoted(key)} of {name}{beside}.",)


def _as_table(value: Any, wanted: Mapping[str, str]) -> list[Any] | Mapping[str, Any] | None:
    """Records, or columns by name; None for anything else."""
    if not isinstance(value, list | dict) or not value:
        return None
    if isinstance(value, list):
        return value if isinstance(value[0], dict) else None
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        return [dict(zip(map(str, names), row, strict=False)) for row in rows]
    asked = set(wanted.values())
    if all(isinstance(value.get(column), list | dict) for column in asked):
        return value
    inner = list(value.values())
    if all(isinstance(item, dict) and asked & item.keys() for item in inner):
        return None if all(_has_columns(item, wanted) for item in inner) else inner
    if all(isinstance(item, list) and not any(isinstance(entry, list | dict) for entry in item) for item in inner):
        return value  # columns, of other names than are asked for
    return None


def _has_columns(value: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether an object is a table of columns, and no row: the text of a row is no list, its words no list of lists."""

    def is_column(key: str, values: Any) -> bool:
        first = values[0] if isinstance(values, list) and values else None
        if key in _LISTS:
            return isinstance(values, dict) or isinstance(first, list)
        return isinstance(values, list | dict) and not isinstance(first, dict)

    return all(is_column(key, value[column]) for key, column in wanted.items() if column in value)


def _lists(columns: Mapping[str, Any], name: str, wanted: Mapping[str, str]) -> Columns:
    require_columns(name, list(columns), wanted)
    lists: Columns = {}
    for column in wanted.values():
        values = columns[column]
        if isinstance(values, dict):  # by row, as pandas' to_json writes a frame
            first = next(iter(wanted.values()))
            order = list(columns[first]) if isinstance(columns[first], dict) else list(values)
            values = [values.get(row) for row in order]
        lists[column] = list(values)
    lengths = {column: len(values) for column, values in lists.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{quoted(column)} has {length}" for column, length in lengths.items())
        raise DataError.about(_KEY, f"the columns of {name} must be equally long, {shown}")
    return lists


def _columns_of(records: Iterable[tuple[int, Any]], unit: str, name: str, wanted: Mapping[str, str]) -> Columns:
    columns: Columns = {column: [] for column in wanted.values()}
    available: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, dict):
            rule = f"{unit} {number} of {name} must be an object"
            raise DataError.about(_KEY, rule, got=type(record).__name__)
        available.update(dict.fromkeys(record))
        for column, values in columns.items():
            values.append(record.get(column))
    require_columns(name, list(available), wanted)
    return columns
