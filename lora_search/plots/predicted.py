"""Out-of-fold predictions of a few trials side by side, for confusion matrices and for what two adapters differ on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lora_search.store.predictions import read_cell_predictions
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey


def predictions_view(tables: StudyTables, trials: Sequence[int]) -> dict[str, Any] | None:
    """The most probable label of every example by the trials that were not trained on it.

    Args:
        tables: the study.
        trials: numbers of trials.

    Returns:
        JSON types: ``labels`` (names), ``truth`` (a label index by example) and ``predicted`` (the same by trial
        number; -1 where no cell of the trial predicted the example). Several repeats are averaged. None before the
        study has predicted anything, and where an example has no one label.

    Raises:
        StudyError: a file of predictions is missing or damaged.
    """
    truth = tables.examples()["label"].to_numpy(dtype=np.int64)
    one_label = tables.experiment.model.task == "text-classification"
    if not one_label or not len(truth) or not trials:
        return None
    complete = tables.cells[tables.cells["state"] == "complete"]
    predicted: dict[str, list[int]] = {}
    width = 0
    for trial in trials:
        mine = complete[complete["trial"] == trial]
        total: np.ndarray | None = None
        for repeat, fold in zip(mine["repeat"], mine["fold"], strict=True):
            key = CellKey(trial, int(repeat), int(fold))
            examples, probabilities = read_cell_predictions(tables.folder, key, tables.checksums.get(key))
            if total is None:
                total = np.zeros((len(truth), probabilities.shape[1]), dtype=np.float64)
            total[examples] += probabilities
        if total is not None:
            width = total.shape[1]
            predicted[str(trial)] = np.where(total.any(axis=1), total.argmax(axis=1), -1).tolist()
    if not predicted:
        return None
    names = (tables.environment.get("data") or {}).get("labels") or []
    labels = [str(name) for name in names] if len(names) >= width else [str(label) for label in range(width)]
    return {"labels": labels, "truth": truth.tolist(), "predicted": predicted}
