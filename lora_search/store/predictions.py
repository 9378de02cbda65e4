"""Out-of-fold predictions: one small npz file per complete cell, read without pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.store.files import PREDICTIONS_FOLDER, write_atomically
from lora_search.store.records import CellKey, CellResult


def predictions_path(folder: Path, key: CellKey) -> Path:
    """The file of one cell: ``predictions/trial-0003-repeat-0-fold-1.npz``."""
    return folder / PREDICTIONS_FOLDER / f"trial-{key.trial:04d}-repeat-{key.repeat}-fold-{key.fold}.npz"


def write_cell_predictions(folder: Path, result: CellResult) -> None:
    """Write the file of one cell, whole or not at all."""
    content = io.BytesIO()
    np.savez(
        content,
        example=np.asarray(result.examples, dtype=np.int64),
        probability=np.asarray(result.probabilities, dtype=np.float32),
    )
    path = predictions_path(folder, result.key)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content.getvalue())


def examples_path(folder: Path) -> Path:
    """The file that says what the predicted examples are: ``predictions/examples.npz``."""
    return folder / PREDICTIONS_FOLDER / "examples.npz"


def write_examples(folder: Path, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
    """Write the true label and the group of every example of the encoded data, both (n,)."""
    content = io.BytesIO()
    np.savez(content, label=np.asarray(labels, dtype=np.int64), group=np.asarray(groups, dtype=np.int64))
    path = examples_path(folder)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content.getvalue())


def read_cell_predictions(folder: Path, key: CellKey) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The examples (n,) of one cell and their probabilities (n, labels).

    Raises:
        StudyError: the file is missing or damaged.
    """
    path = predictions_path(folder, key)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["example"], arrays["probability"]
    except FileNotFoundError as error:
        raise StudyError(f"{path}: is missing, and study.db says that {key} is complete") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise StudyError(f"{path}: must be the predictions of {key}, got a damaged file: {error}") from error
