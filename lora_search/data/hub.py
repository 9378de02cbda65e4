"""Columns of a dataset of the hub, through the datasets library; its errors in words the user can act on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lora_search.data.arrow import table_of
from lora_search.data.table import Table
from lora_search.data.wording import require_columns
from lora_search.errors import DataError
from lora_search.spec.quoting import cut, quoted

_REASON_WIDTH = 200  # characters of a library's message worth repeating


def read_hub(name: str, config: str | None, split: str, wanted: Mapping[str, str]) -> Table:
    """The wanted columns of one split.

    Args:
        name: ``OWNER/NAME``.
        config: the dataset's configuration, where it has several.
        split: the split: ``train``.
        wanted: key of the experiment -> column it names.

    Raises:
        DataError: not reachable, no such dataset, configuration, split or column.
    """
    dataset = _load(name, config, split)
    require_columns(f"hub:{name}", dataset.column_names, wanted)
    return table_of(dataset, wanted)


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
        asked = f"{f'config {quoted(config)}, ' if config else ''}split {quoted(split)}"
        raise DataError.about("data.train", f"'hub:{name}' cannot be loaded ({asked}): {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return cut(next(iter(str(error).splitlines()), ""), _REASON_WIDTH) or type(error).__name__
