"""The texts a study was made on, by the numbers its predictions are kept under."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.store.predictions import read_examples
from lora_search.store.reader import read_study
from lora_search.tasks import task_of

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """One example of the encoded data.

    Attributes:
        number: its position there, as predictions name it.
        row: its data row in the source, from 1.
        label: the name of its true label.
        text: what was classified; of a pair, both texts with a bar between.
    """

    number: int
    row: int
    label: str
    text: str


def study_examples(folder: str | Path) -> list[Example]:
    """Every example of a study, read again from its source; a study keeps labels and predictions, no texts.

    Raises:
        DataError: the source cannot be read.
        StudyError: no study there, it has trained nothing yet, or its source is no longer what it was.
    """
    tables = read_study(folder)
    recorded = read_examples(tables.folder)
    if recorded.empty:
        raise StudyError.about(tables.folder, "must have trained something", got="a study without predictions")
    experiment = tables.experiment
    dataset = task_of(experiment.model.task).load(experiment.data, experiment.seed, experiment.cv.folds)
    groups = recorded["group"].to_numpy()
    if not (np.array_equal(dataset.labels, recorded["label"]) and _within(dataset.groups, groups)):
        raise StudyError.about(
            "data.train", f"must hold the examples of {tables.folder}", got="others: the source has changed"
        )
    texts = dataset.texts
    if dataset.pairs is not None:
        texts = tuple(f"{one} | {other}" for one, other in zip(dataset.texts, dataset.pairs, strict=True))
    return [
        Example(number, int(row), dataset.label_of(number), text)
        for number, (row, text) in enumerate(zip(dataset.rows, texts, strict=True))
    ]


def _within(groups: Indices, wider: Indices) -> bool:
    """Whether each group lies in one of the wider ones: encoding joins groups whose texts become the same tokens."""
    pairs = np.unique(np.stack([groups, wider]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(groups)))
