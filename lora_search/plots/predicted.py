"""Out-of-fold predictions of a few trials side by side, for confusion matrices and for what two adapters differ on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_search.metrics.entities import COLUMNS
from lora_search.store.predictions import read_cell_predictions
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey

Array = NDArray[Any]


def predictions_view(tables: StudyTables, trials: Sequence[int]) -> dict[str, Any] | None:
    """What the trials that were not trained on it say of every example: its most probable label, or of a sentence the
    entities they mark in it.

    Args:
        tables: the study.
        trials: numbers of trials.

    Returns:
        JSON types: ``labels`` (names), ``truth`` (a label index by example) and ``predicted`` (the same by trial
        number; -1 where no cell of the trial predicted the example). Of sentences ``labels`` is None, ``truth`` the
        number of entities in each, and ``predicted`` has by trial ``hits`` (entities marked with their type and both
        ends) and ``marked`` (all that were). Several repeats are averaged. None before the study has predicted
        anything, and where an example has neither one label nor entities.

    Raises:
        StudyError: a file of predictions is missing or damaged.
    """
    truth = tables.examples()["label"].to_numpy(dtype=np.int64)
    told = _TOLD.get(tables.experiment.model.task)
    if told is None or not len(truth):
        return None
    totals = {trial: _total(tables, trial, len(truth)) for trial in trials}
    known = {trial: total for trial, total in totals.items() if total is not None}
    return told(tables, truth, known) if known else None


def _total(tables: StudyTables, trial: int, examples: int) -> tuple[Array, Array] | None:
    """The sum over repeats of what was predicted for every example, and of how many repeats; None without any."""
    complete = tables.cells[(tables.cells["state"] == "complete") & (tables.cells["trial"] == trial)]
    total, times = None, np.zeros(examples)
    for repeat, fold in zip(complete["repeat"], complete["fold"], strict=True):
        key = CellKey(trial, int(repeat), int(fold))
        where, predicted = read_cell_predictions(tables.folder, key, tables.checksums.get(key))
        if total is None:
            total = np.zeros((examples, predicted.shape[1]), dtype=np.float64)
        total[where] += predicted
        times[where] += 1
    return None if total is None else (total, times)


def _labels_view(tables: StudyTables, truth: Array, totals: Mapping[int, tuple[Array, Array]]) -> dict[str, Any]:
    predicted = {
        str(trial): np.where(times > 0, total.argmax(axis=1), -1).tolist() for trial, (total, times) in totals.items()
    }
    width = max(total.shape[1] for total, _ in totals.values())
    names = (tables.environment.get("data") or {}).get("labels") or []
    labels = [str(name) for name in names] if len(names) >= width else [str(label) for label in range(width)]
    return {"labels": labels, "truth": truth.tolist(), "predicted": predicted}


def _entities_view(tables: StudyTables, truth: Array, totals: Mapping[int, tuple[Array, Array]]) -> dict[str, Any]:
    actual, predicted = np.full(len(truth), -1.0), {}
    hits, marked, there = (COLUMNS.index(name) for name in ("hits", "predicted entities", "actual entities"))
    for trial, (total, times) in totals.items():
        mean = np.where(times[:, None] > 0, total / np.maximum(times, 1.0)[:, None], -1.0).round(2)
        actual = np.where(times > 0, mean[:, there], actual)
        predicted[str(trial)] = {"hits": mean[:, hits].tolist(), "marked": mean[:, marked].tolist()}
    return {"labels": None, "truth": actual.tolist(), "predicted": predicted}


_TOLD: Mapping[str, Callable[[StudyTables, Array, Mapping[int, tuple[Array, Array]]], dict[str, Any]]] = {
    "text-classification": _labels_view,
    "token-classification": _entities_view,
}
