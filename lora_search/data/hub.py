"""Columns of a dataset of the hub, through the datasets library; its errors in words the user can act on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lora_search.data.files import Columns
from lora_search.data.wording import require_columns
from lora_search.errors import DataError


def read_hub(name: str, config: str | None, split: str, wanted: Mapping[str, str]) -> Columns:
    """The wanted columns of one split.

    Args:
        name: ``OWNER/NAME``.
        config: the dataset's configuration, where it has several.
        split: the split: ``train``.
        wanted: key of the experiment -> column it names.

    Returns:
        Column name -> values, one per row; class labels by name, ``None`` where there is none.

    Raises:
        DataError: not reachable, no such dataset, configuration, split or column.
    """
    table = _load(name, config, split)
    require_columns(f"hub:{name}", table.column_names, wanted)
    return {column: _values(table, column) for column in wanted.values()}


def _load(name: str, config: str | None, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError.about(
            "data.train", "must be a dataset of the hub that you may read", got=f"'hub:{name}': {_first_line(error)}"
        ) from error
    except ConnectionError as error:
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else "no network"
        raise DataError.about(
            "data.train",
            f"'hub:{name}' cannot be reached and is not in the local cache ({offline})",
            hint="load it once while online, or save it as csv, jsonl or parquet and give that file's path",
        ) from error
    except (ValueError, RuntimeError, OSError, datasets.exceptions.DatasetsError) as error:
        asked = f"config {config!r}, split {split!r}" if config else f"split {split!r}"
        raise DataError.about("data.train", f"'hub:{name}' cannot be loaded ({asked}): {_first_line(error)}") from error


def _values(table: Any, column: str) -> list[Any]:
    """A column's values; class labels, stored as numbers, by their names. -1 is the hub's way to say "no label"."""
    import datasets

    values: list[Any] = list(table[column])
    feature = table.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    return [None if value is None or value < 0 else feature.int2str(value) for value in values]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
