"""Columns of a local file: csv, tsv, json, jsonl, parquet, plain or compressed with gzip or bzip2.

Values come as the file has them. In csv and tsv all are strings, and an empty field is an empty string: nothing is
turned into a number, and ``NA`` or ``null`` are two letters and four. In the other formats ``None`` is a missing value.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import IO, TYPE_CHECKING, Any

from lora_search.data.wording import require_columns, rows_phrase
from lora_search.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, list[Any]]

_KEY = "data.train"
_REASON_WIDTH = 200  # characters of a library's message worth repeating
_A_LIST = "; a list of objects is .json"
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def read_file(path: Path, wanted: Mapping[str, str]) -> Columns:
    """The wanted columns of a file.

    Args:
        path: the file; its name says the format.
        wanted: key of the experiment -> column it names.

    Returns:
        Column name -> values, one per data row.

    Raises:
        DataError: unknown format, unreadable or damaged file, missing column.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    opener = _OPENERS.get(suffixes[-1]) if suffixes else None
    format_suffix = suffixes[-2] if opener and len(suffixes) > 1 else suffixes[-1] if suffixes else ""
    reader = _READERS.get(format_suffix)
    if path.is_dir() or reader is None:
        known = ", ".join(_READERS)
        got = "a folder" if path.is_dir() else repr(path.name)
        raise DataError.about(_KEY, f"must be a file ending in {known} (or one of these and .gz or .bz2)", got=got)
    try:
        with (opener or _open_plain)(path) as stream:
            return reader(stream, path.name, wanted)
    except UnicodeDecodeError as error:
        raise DataError.about(_KEY, "must be UTF-8 text", got=f"{path.name}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError.about(_KEY, f"{path} cannot be read: {error}") from error


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_gzip(path: Path) -> IO[bytes]:
    return io.BufferedReader(gzip.open(path, "rb"))


def _open_bz2(path: Path) -> IO[bytes]:
    return io.BufferedReader(bz2.open(path, "rb"))


def _read_csv(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> Columns:
    return _read_delimited(stream, name, wanted, ",")


def _read_tsv(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> Columns:
    """As csv; but a stray quote that opened a field and swallowed the rows below is refused, not read as one text."""
    columns = _read_delimited(stream, name, wanted, "\t")
    swallowed = sorted(
        {
            row
            for values in columns.values()
            for row, value in enumerate(values, start=1)
            if "\t" in value and "\n" in value
        }
    )
    if swallowed:
        raise DataError.about(
            _KEY,
            f"a quote that starts a field of {name} must be closed in that field and doubled inside it",
            hint=f"{rows_phrase(swallowed)} run over tabs and line ends",
        )
    return columns


def _read_delimited(stream: IO[bytes], name: str, wanted: Mapping[str, str], delimiter: str) -> Columns:
    import pandas as pd

    content = stream.read()

    def rows(count: int | None) -> pd.DataFrame:
        # the header is read as a row, for pandas would rename a column that is there twice, and cut longer rows
        return pd.read_csv(
            io.BytesIO(content),
            sep=delimiter,
            dtype=str,
            na_filter=False,
            index_col=False,
            encoding="utf-8-sig",
            header=None,
            nrows=count,
        )

    try:
        header = [str(column) for column in rows(1).iloc[0]]
        _check_separator(header, name, delimiter)
        frame = rows(None).iloc[1:]
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise DataError.about(_KEY, f"{name} is no table of delimited text: {_in_one_line(error)}") from error
    return _picked(frame, header, name, wanted)


def _in_one_line(error: Exception) -> str:
    return shorten(str(error), _REASON_WIDTH, placeholder=" ...")


def _check_separator(header: list[str], name: str, delimiter: str) -> None:
    """A text and its label take two columns; one that holds another separator was meant as several."""
    if len(header) == 1 and any(other in header[0] for other in _SEPARATORS if other != delimiter):
        raise DataError.about(
            _KEY, f"{name} must have its columns separated by {_SEPARATORS[delimiter]}", got=f"the header {header[0]!r}"
        )


def _read_parquet(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> Columns:
    import pandas as pd

    try:
        # Arrow's own types: NumPy's would turn integers with a missing one into floats
        frame = pd.read_parquet(io.BytesIO(stream.read()), dtype_backend="pyarrow")
    except ValueError as error:  # ArrowInvalid is one
        raise DataError.about(_KEY, f"{name} cannot be read as parquet: {_in_one_line(error)}") from error
    picked = _picked(frame, [str(column) for column in frame.columns], name, wanted)
    return {column: [None if value is pd.NA else value for value in values] for column, values in picked.items()}


def _picked(frame: pd.DataFrame, header: list[str], name: str, wanted: Mapping[str, str]) -> Columns:
    require_columns(name, header, wanted)
    return {column: frame.iloc[:, header.index(column)].tolist() for column in wanted.values()}


def _read_json(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> Columns:
    def why(error: json.JSONDecodeError) -> str:
        return f"{error}{'; one object per line is .jsonl' if error.msg == 'Extra data' else ''}"

    records = _parsed(stream.read().decode("utf-8-sig"), name, why)
    if not isinstance(records, list):
        raise DataError.about(_KEY, f"{name} must hold a list of objects", got=f"{type(records).__name__} at its top")
    return _columns_of(enumerate(records, start=1), "item", name, wanted)


def _read_jsonl(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> Columns:
    def why(error: json.JSONDecodeError) -> str:
        return f"{error.msg}{_A_LIST if error.doc.lstrip().startswith('[') else ''}"

    def records() -> Iterable[tuple[int, Any]]:
        for number, line in enumerate(stream.read().decode("utf-8-sig").split("\n"), start=1):
            if not line.strip():
                continue
            record = _parsed(line, f"line {number} of {name}", why)
            if isinstance(record, list):
                raise DataError.about(_KEY, f"line {number} of {name} must be an object", got=f"list{_A_LIST}")
            yield number, record

    return _columns_of(records(), "line", name, wanted)


def _parsed(text: str, where: str, why: Callable[[json.JSONDecodeError], str]) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError.about(_KEY, f"{where} is not JSON: {why(error)}") from error
    except RecursionError as error:
        raise DataError.about(
            _KEY, f"{where} must hold flat objects", got="values nested too deeply to read"
        ) from error
    except ValueError as error:  # a whole number of thousands of digits
        raise DataError.about(_KEY, f"{where} cannot be read: {error}") from error


def _columns_of(records: Iterable[tuple[int, Any]], unit: str, name: str, wanted: Mapping[str, str]) -> Columns:
    columns: Columns = {column: [] for column in wanted.values()}
    available: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, dict):
            raise DataError.about(_KEY, f"{unit} {number} of {name} must be an object", got=type(record).__name__)
        available.update(dict.fromkeys(record))
        for column, values in columns.items():
            values.append(record.get(column))
    require_columns(name, list(available), wanted)
    return columns


_OPENERS: Mapping[str, Callable[[Path], IO[bytes]]] = {".gz": _open_gzip, ".bz2": _open_bz2}

_READERS: Mapping[str, Callable[[IO[bytes], str, Mapping[str, str]], Columns]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
