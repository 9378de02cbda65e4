"""Columns of parquet files, and of the folders that ``save_to_disk`` of datasets writes.

Every column that is stored can be named, an index that pandas stored too. Class numbers become the names the file has
for them. Values are Python's own: numbers, strings, dates, ``None`` where there is none. Nothing in these formats runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lora_search.data.table import Columns, Table, named_classes
from lora_search.data.wording import listed, require_columns
from lora_search.errors import DataError
from lora_search.spec.paths import check_no_pointer
from lora_search.spec.quoting import in_one_line, quoted

_KEY = "data.train"
_REASON_WIDTH = 200  # characters of a library's message worth repeating
_DATASET, _DATASETS = "dataset_info.json", "dataset_dict.json"


def read_parquet(content: bytes, name: str, wanted: Mapping[str, str]) -> Table:
    """The wanted columns of a parquet file.

    Args:
        content: the file.
        name: of the file, for messages.
        wanted: key of the experiment -> column it names.

    Raises:
        DataError: no parquet, damaged, or missing columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        schema = file.schema_arrow
        require_columns(name, schema.names, wanted)
        # a dot in the name asks parquet for what is inside a column
        only = None if any("." in column for column in wanted.values()) else list(wanted.values())
        table = file.read(columns=only)
        columns = _columns(wanted, lambda column: table.column(column).to_pylist(), name)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = in_one_line(str(error), _REASON_WIDTH)
        raise DataError.about(_KEY, f"{name} cannot be read as parquet: {reason}") from error
    return _with_names(columns, _stored_names(schema.metadata, wanted))


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` of datasets wrote this folder."""
    return any((folder / file).is_file() for file in (_DATASET, _DATASETS))


def read_saved(folder: Path, split: str | None, wanted: Mapping[str, str]) -> Table:
    """The wanted columns of a folder that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote.

    Args:
        folder: the folder.
        split: of a ``DatasetDict``; None for the only one, or ``train``.
        wanted: key of the experiment -> column it names.

    Raises:
        DataError: damaged, no such split, a split of a ``Dataset``, or missing columns.
    """
    import datasets

    try:
        for file in sorted(folder.glob("**/*.arrow")):
            check_no_pointer(file, error=DataError, key=_KEY)
        loaded = _split_of(datasets.load_from_disk(str(folder)), split, folder)
        require_columns(folder.name, loaded.column_names, wanted)
        return table_of(loaded, wanted)
    except DataError:
        raise
    except Exception as error:  # a damaged folder can fail anywhere inside the library
        reason = in_one_line(str(error), _REASON_WIDTH) or type(error).__name__
        raise DataError.about(_KEY, f"{folder} cannot be read as a folder of save_to_disk: {reason}") from error


def table_of(dataset: Any, wanted: Mapping[str, str]) -> Table:
    """Columns of a ``Dataset`` of datasets, class labels by their names.

    Raises:
        DataError: values that Python has no object for.
    """
    import datasets

    dataset = dataset.with_format(None)  # or it would give arrays, or lack columns, as its maker had it in a loop
    columns = _columns(wanted, lambda column: list(dataset[column]), "the dataset")
    names: dict[str, tuple[str, ...]] = {}
    for column in columns:
        feature = dataset.features[column]
        feature = getattr(feature, "feature", feature)  # of the elements of a list
        if isinstance(feature, datasets.ClassLabel):
            names[column] = tuple(feature.names)
    return _with_names(columns, names)


def _columns(wanted: Mapping[str, str], read: Callable[[str], list[Any]], name: str) -> Columns:
    """The wanted columns, each as Python's own values."""
    columns: Columns = {}
    for key, column in wanted.items():
        try:
            columns[column] = read(column)
        except OverflowError as error:
            rule = f"column {quoted(column)} of {name} must hold dates and times that Python knows, years 1 to 9999"
            raise DataError.about(key, rule, got="others") from error
    return columns


def _split_of(loaded: Any, split: str | None, folder: Path) -> Any:
    """The dataset meant: the split of a ``DatasetDict``, or a ``Dataset``, which has none."""
    import datasets

    if not isinstance(loaded, datasets.DatasetDict):
        if split is not None:
            rule = f"must be left out where {folder.name} has no splits"
            raise DataError.about("data.split", rule, got=quoted(split))
        return loaded
    splits = list(loaded)
    wanted = split or ("train" if len(splits) > 1 else splits[0] if splits else "train")
    if wanted not in splits:
        rule = f"must be one of {listed(splits) or 'none'} in {folder.name}"
        raise DataError.about("data.split", rule, got=quoted(wanted))
    return loaded[wanted]


def _stored_names(metadata: Mapping[bytes, bytes] | None, wanted: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The names of classes that datasets keeps in a parquet file's schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    found = {}
    for column in wanted.values():
        feature = features.get(column) if isinstance(features, dict) else None
        if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]  # of the elements of a list
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                found[column] = tuple(names)
    return found


def _with_names(columns: Columns, names: Mapping[str, tuple[str, ...]]) -> Table:
    named = {
        column: named_classes(values, names[column]) if column in names else values
        for column, values in columns.items()
    }
    return Table(named, names)
