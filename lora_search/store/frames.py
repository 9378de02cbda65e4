"""Rows of a database -> the two tables of a study, as pandas frames with fixed columns and types, empty or not."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lora_search.metrics import metrics_beside
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.connection import Connection
from lora_search.store.database import rows_of
from lora_search.store.records import TrialRecord

_TRIAL_COLUMNS: Mapping[str, Any] = {
    "trial": "int64",
    "state": "str",
    "origin": "str",
    "rank": "int64",
    "alpha": "float64",
    "targets": "str",
    "layers": "str",
    "scaling": "str",
    "use_dora": "bool",
    "bias": "str",
    "rank_pattern": "str",
    "learning_rate": "float64",
    "dropout": "float64",
    "adapter_parameters": "int64",
    "head_parameters": "int64",
    "cells": "int64",
    "score_mean": "float64",
    "score_std": "float64",
    "seconds": "float64",
    "wall_seconds": "float64",
    "failure": "object",
}
_FOLD: Mapping[str, Any] = {"repeat": "int64", "fold": "int64", "state": "str", "score": "float64"}
_TRAINED: Mapping[str, Any] = {
    "train_loss": "float64",
    "examples": "int64",
    "train_examples": "int64",
    "steps": "int64",
    "tokens": "int64",
    "seconds": "float64",
}
_ENDED: Mapping[str, Any] = {"failure": "object", "finished_at": "datetime64[ms, UTC]"}
"""What a training says of itself, of an adapter or of a baseline: where, how, and how it ended."""

_CELL_COLUMNS: Mapping[str, Any] = {
    "trial": "int64",
    **_FOLD,
}
_COLUMNS_AFTER_SCORES: Mapping[str, Any] = {
    **_TRAINED,
    "wall_seconds": "float64",
    "pack": "int64",
    "pack_cells": "int64",
    **_ENDED,
}
_BASELINE_COLUMNS: Mapping[str, Any] = {
    "baseline": "str",
    "learning_rate": "float64",
    **_FOLD,
}
_BASELINE_COLUMNS_AFTER_SCORES: Mapping[str, Any] = {
    **_TRAINED,
    "trainable_parameters": "int64",
    "step_bytes": "float64",
    **_ENDED,
}


def cells_frame(cells: Sequence[Mapping[str, Any]], metric: str) -> pd.DataFrame:
    """One row per recorded cell, in order; ``score`` is ``metric`` on the fold, and every score has a column.

    Scores are NaN for a failed cell, ``failure`` is None for a complete one.

    Args:
        cells: as ``database.cells_of`` gives them.
        metric: of the verdict.
    """
    return _with_scores(cells, metric, _CELL_COLUMNS, _COLUMNS_AFTER_SCORES)


def _with_scores(
    cells: Sequence[Mapping[str, Any]], metric: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> pd.DataFrame:
    names = tuple(dict.fromkeys(name for cell in cells for name in cell["scores"]))
    names = names or tuple(beside.name for beside in metrics_beside(metric))  # the columns of a table that has no row
    unknown = dict.fromkeys(names, math.nan)
    rows = [{**cell, **unknown, **cell["scores"], "score": cell["scores"].get(metric, math.nan)} for cell in cells]
    return _frame(rows, {**before, **dict.fromkeys(names, "float64"), **after})


def baselines_frame(rows: Sequence[Mapping[str, Any]], metric: str) -> pd.DataFrame:
    """One row per recorded training of a baseline, in order; scores as in ``cells_frame``.

    Args:
        rows: as ``database.baselines_of`` gives them.
        metric: of the verdict.
    """
    return _with_scores(rows, metric, _BASELINE_COLUMNS, _BASELINE_COLUMNS_AFTER_SCORES)


def trials_frame(connection: Connection, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, sorted by number.

    ``cells`` counts the complete ones; ``score_mean`` and ``score_std`` (with J - 1 in the denominator) are over those.
    ``seconds`` is the compute of all its cells, ``wall_seconds`` its equal share of the clock time of their packs.
    """
    complete = cells[cells["state"] == "complete"].groupby("trial")["score"].agg(["count", "mean", "std"])
    shares = cells["wall_seconds"] / cells["pack_cells"]
    spent = cells.assign(wall_seconds=shares).groupby("trial")[["seconds", "wall_seconds"]].sum()
    # as plain rows: to ask a frame for one row after another takes most of the time of reading a large study
    scored, taken = ({row[0]: row[1:] for row in frame.itertuples(name=None)} for frame in (complete, spent))
    rows = [_trial(row) for row in rows_of(connection, "select * from lora_trials order by trial")]
    for row in rows:
        number = row["trial"]
        row["cells"], row["score_mean"], row["score_std"] = scored.get(number, (0, None, None))
        row["seconds"], row["wall_seconds"] = taken.get(number, (0.0, 0.0))
    return _frame(rows, _TRIAL_COLUMNS)


def trial_record(row: Mapping[str, Any]) -> TrialRecord:
    """The record behind a row of the trials table."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    fields = {field.name for field in dataclasses.fields(TrialRecord)}
    return TrialRecord(
        adapter=AdapterSpec.model_validate({name: plain[name] for name in AdapterSpec.model_fields}),
        nuisance=Nuisance.model_validate({name: plain[name] for name in Nuisance.model_fields}),
        **{name: value for name, value in plain.items() if name in fields},
    )


def _trial(row: dict[str, Any]) -> dict[str, Any]:
    adapter = AdapterSpec.model_validate_json(row.pop("adapter"))
    nuisance = Nuisance.model_validate_json(row.pop("nuisance"))
    return {**row, **adapter.model_dump(), **nuisance.model_dump()}


def _frame(rows: list[dict[str, Any]], columns: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({name: _column([row[name] for row in rows], _dtype(kind)) for name, kind in columns.items()})


_dtype = functools.cache(pd.api.types.pandas_dtype)
"""A run reads its tables often, and pandas takes longer to read the name of a type than to fill a small column."""


def _column(values: list[Any], dtype: Any) -> Any:
    if not isinstance(dtype, np.dtype):
        return pd.array(values, dtype)
    # a bare array of objects that are texts would become a column of texts
    return pd.Series(values, dtype=dtype) if dtype.hasobject else np.array(values, dtype)
