"""Out-of-fold predictions: one small npz file per complete cell, read without pickle, and known by its checksum.

A file is written once and never changed, so what is read of a recorded cell is the same whenever it is read.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.spec.paths import UNREADABLE
from lora_search.store.files import PREDICTIONS_FOLDER, write_atomically
from lora_search.store.records import BaselineKey, CellKey, CellResult

Key = CellKey | BaselineKey
AnyKey = TypeVar("AnyKey", bound=Key)
_KINDS: Mapping[str, Any] = {"baseline": np.object_, "learning_rate": np.float64}
"""Of the columns that are no whole numbers."""
_DAMAGED = (*UNREADABLE, ValueError, KeyError, TypeError, RuntimeError, SyntaxError, tokenize.TokenError)
"""What NumPy raises over bytes that are no arrays: of the archive, of a flag that calls it encrypted, or of the header
of an array in it."""


def predictions_path(folder: Path, key: Key) -> Path:
    """The file of one training: ``predictions/trial-0003-repeat-0-fold-1.npz``, and of what is no adapter
    ``predictions/baseline-full-3e-05-repeat-0-fold-1.npz``."""
    if isinstance(key, CellKey):
        name = f"trial-{key.trial:04d}"
    else:
        name = f"baseline-{key.baseline}" + ("" if key.learning_rate is None else f"-{key.learning_rate!r}")
    return folder / PREDICTIONS_FOLDER / f"{name}-repeat-{key.repeat}-fold-{key.fold}.npz"


def write_predictions(folder: Path, key: Key, result: CellResult) -> str:
    """Write the file of one training, whole or not at all; returns its checksum."""
    return _write(
        predictions_path(folder, key),
        example=np.asarray(result.examples, dtype=np.int64),
        probability=np.asarray(result.probabilities, dtype=np.float32),
    )


def read_cell_predictions(
    folder: Path, key: Key, checksum: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The examples (n,) of one cell and their probabilities (n, labels).

    Args:
        folder: the study's.
        key: which cell.
        checksum: what the file has to be; None where a study of format 1 kept none.

    Raises:
        StudyError: the file is missing or damaged, or is another one.
    """
    path = predictions_path(folder, key)
    try:
        content = path.read_bytes()
        if checksum is not None and checksum_of(content) != checksum:
            raise ValueError("its checksum is not the one that was recorded with it")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            examples, probabilities = arrays["example"], arrays["probability"]
            if examples.ndim != 1 or probabilities.ndim != 2 or len(examples) != len(probabilities):
                raise ValueError(f"its arrays are of shapes {examples.shape} and {probabilities.shape}")
            return examples, probabilities
    except FileNotFoundError as error:
        raise StudyError.about(
            path, f"is missing, and study.db says that {key} is complete", hint=_remedy(folder)
        ) from error
    except _DAMAGED as error:
        raise StudyError.about(
            path, f"must be the predictions of {key}", got=f"a damaged file: {error}", hint=_remedy(folder)
        ) from error


def predictions_frame(folder: Path, checksums: Mapping[AnyKey, str | None], kind: type[Key] = CellKey) -> pd.DataFrame:
    """The predictions of these cells, one row per cell and example.

    Args:
        folder: the study's.
        checksums: of each cell.
        kind: of their keys, whose fields become columns.

    Returns:
        trial (or baseline and learning_rate, NaN for none), repeat, fold, example (position in the encoded data), and
        the probability of each label as p0, p1, ... (float32). No p columns without a cell.

    Raises:
        StudyError: a file is missing or damaged, or is of other labels than the rest.
    """
    keys = sorted(checksums, key=lambda key: [value or 0 for value in astuple(key)])
    parts = [(key, *read_cell_predictions(folder, key, checksums[key])) for key in keys]
    labels = {probabilities.shape[1]: key for key, _, probabilities in reversed(parts)}
    if len(labels) > 1:
        (count, first), (other, second), *_ = labels.items()
        raise StudyError.about(
            predictions_path(folder, second),
            "must be of as many labels as the other predictions",
            got=f"{other}, and {count} for {first}",
        )
    sizes = [len(examples) for _, examples, _ in parts]
    columns: dict[str, Any] = {
        name: np.repeat(np.array([getattr(key, name) for key in keys], dtype=_KINDS.get(name, np.int64)), sizes)
        for name in (field.name for field in fields(kind))
    }
    columns["example"] = np.concatenate([np.zeros(0, dtype=np.int64), *(examples for _, examples, _ in parts)])
    if parts:
        probabilities = np.concatenate([part for *_, part in parts])
        columns |= {f"p{label}": probabilities[:, label] for label in range(probabilities.shape[1])}
    return pd.DataFrame(columns)


# -- what the predicted examples are -----------------------------------------------------------------------------


def examples_path(folder: Path) -> Path:
    """The file that says what the predicted examples are: ``predictions/examples.npz``."""
    return folder / PREDICTIONS_FOLDER / "examples.npz"


def write_examples(
    folder: Path, labels: NDArray[np.int64], groups: NDArray[np.int64], answers: NDArray[Any] | None = None
) -> None:
    """Write what every example of the encoded data is, unless that is there.

    Args:
        folder: the study's.
        labels, groups: (n,), the label of each and its group.
        answers: (n, ...), what is right of it, where a label says not all; the label is then what it was stratified by.
    """
    path = examples_path(folder)
    arrays: dict[str, NDArray[Any]] = {
        "label": np.asarray(labels, dtype=np.int64),
        "group": np.asarray(groups, dtype=np.int64),
    }
    if answers is not None:
        arrays["answer"] = answers
    try:
        same = path.read_bytes() == _content(**arrays)
    except OSError:
        same = False
    if not same:
        _write(path, **arrays)


def read_examples(folder: str | Path) -> pd.DataFrame:
    """What the predicted examples are: their true ``label`` and their ``group``, by position in the encoded data; and
    where a label says not all, what is right of them as t0, t1, ...

    Raises:
        StudyError: the file is damaged.
    """
    path = examples_path(Path(folder))
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            columns = {"label": arrays["label"], "group": arrays["group"]}
            if "answer" in arrays:
                answers = arrays["answer"].reshape(len(arrays["label"]), -1)
                columns |= {f"t{place}": answers[:, place] for place in range(answers.shape[1])}
            return pd.DataFrame(columns)
    except FileNotFoundError:
        return pd.DataFrame({"label": np.zeros(0, dtype=np.int64), "group": np.zeros(0, dtype=np.int64)})
    except _DAMAGED as error:
        raise StudyError.about(
            path,
            "must be the labels of the examples",
            got=f"a damaged file: {error}",
            hint="it is written again when the study goes on",
        ) from error


# -- files -------------------------------------------------------------------------------------------------------


def checksum_of(content: bytes) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def recorded_checksum(folder: Path, key: CellKey) -> str | None:
    """Of the predictions that a cell has on the disk; None where there are none that can be read."""
    try:
        read_cell_predictions(folder, key)
        return checksum_of(predictions_path(folder, key).read_bytes())
    except (StudyError, OSError):
        return None


def _content(**arrays: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _write(path: Path, **arrays: NDArray[Any]) -> str:
    content = _content(**arrays)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content)
    return checksum_of(content)


def _remedy(folder: Path) -> str:
    return f"lora-search doctor {folder} mends the study"
