"""Columns of local files and folders: csv, tsv, json, jsonl, parquet, plain or compressed, or what datasets saved.

Values come as the file has them; what is a text or a label is decided in ``sources``.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

from lora_search.data.arrow import is_saved_dataset, read_parquet, read_saved
from lora_search.data.compression import COMPRESSIONS, content_of, uncompressed_suffix
from lora_search.data.delimited import read_delimited
from lora_search.data.records import read_json, read_jsonl
from lora_search.data.table import Table
from lora_search.errors import DataError
from lora_search.spec.quoting import quoted

_KEY = "data.train"
_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_OTHER_MARKS = {  # of byte order; the longer ones first, for one begins as a shorter does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def may_have_splits(path: Path) -> bool:
    """Whether ``data.split`` can mean something for what is at a path."""
    return path.is_dir() or uncompressed_suffix(path) in (".json", "")


def read_file(path: Path, wanted: Mapping[str, str], split: str | None = None) -> Table:
    """The wanted columns of a file, or of a folder that datasets saved.

    Args:
        path: the file; its name says the format.
        wanted: key of the experiment -> column it names.
        split: which table of several; None for the usual one.

    Raises:
        DataError: unknown format, unreadable or damaged file, missing column.
    """
    if path.is_dir():
        if is_saved_dataset(path):
            return read_saved(path, split, wanted)
        raise _unknown("a folder")
    name, suffix = path.name, uncompressed_suffix(path)
    if suffix not in _FORMATS and path.suffix.lower() != ".zip":  # whose member may say more
        raise _unknown(quoted(name))
    content, suffix = content_of(path)
    try:
        if suffix in (".csv", ".tsv"):
            return read_delimited(content, name, wanted, "," if suffix == ".csv" else "\t")
        if suffix == ".json":
            return read_json(content, name, wanted, split or "train")
        if suffix == ".jsonl":
            return read_jsonl(content, name, wanted)
    except UnicodeDecodeError as error:
        found = next((name for mark, name in _OTHER_MARKS.items() if content.startswith(mark)), None)
        hint = f"it looks like {found}" if found else ""
        got = f"{name} with other bytes at position {error.start}"
        raise DataError.about(_KEY, "must be UTF-8 text", got=got, hint=hint) from error
    if suffix == ".parquet":
        return read_parquet(content, name, wanted)
    raise _unknown(quoted(name))


def _unknown(got: str) -> DataError:
    compressions = f"{', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}"
    rule = (
        f"must be a file ending in {', '.join(_FORMATS)} (or one of these and {compressions}), or a folder that"
        " save_to_disk of datasets wrote"
    )
    return DataError.about(_KEY, rule, got=got)
