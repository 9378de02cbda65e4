"""Out-of-fold predictions: one small npz file per complete cell, read without pickle, and known by its checksum.

A file is written once and never changed, so what is read of a recorded cell is the same whenever it is read. Where the
study is in PostgreSQL the files are too, under the same names, and the folder holds copies of those that were read: a
copy that is missing, or not what was recorded, is fetched again.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lora_search.errors import StudyError
from lora_search.spec.paths import UNREADABLE
from lora_search.store.address import address_in
from lora_search.store.files import PREDICTIONS_FOLDER, STUDY_FILE, write_atomically
from lora_search.store.postgresql import read_files
from lora_search.store.records import BaselineKey, CellKey, CellResult

Key = CellKey | BaselineKey
AnyKey = TypeVar("AnyKey", bound=Key)
_UNKNOWN = None
"""In place of the checksum of a file that may change."""
_AT_ONCE = 200
_NOTHING: Mapping[str, bytes] = {}
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


def predictions_content(result: CellResult) -> bytes:
    """The file of one training."""
    return _content(
        example=np.asarray(result.examples, dtype=np.int64),
        probability=np.asarray(result.probabilities, dtype=np.float32),
    )


def read_cell_predictions(
    folder: Path, key: Key, checksum: str | None = None, brought: Mapping[str, bytes] = _NOTHING
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The examples (n,) of one cell and their probabilities (n, labels).

    Args:
        folder: the study's.
        key: which cell.
        checksum: what the file has to be; None where a study of format 1 kept none.
        brought: files that were just read from a database, by name.

    Raises:
        StudyError: the file is missing or damaged, or is another one.
    """
    path = predictions_path(folder, key)
    try:
        content = brought[path.name] if path.name in brought else _read(folder, path, checksum)
        if checksum is not None and checksum_of(content) != checksum:
            raise ValueError("its checksum is not the one that was recorded with it")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            examples, probabilities = arrays["example"], arrays["probability"]
            if examples.ndim != 1 or probabilities.ndim != 2 or len(examples) != len(probabilities):
                raise ValueError(f"its arrays are of shapes {examples.shape} and {probabilities.shape}")
            return examples, probabilities
    except FileNotFoundError as error:
        raise StudyError.about(
            path, f"is missing, and {_database(folder)} says that {key} is complete", hint=_remedy(folder)
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
    brought = _fetch(folder, {predictions_path(folder, key): checksums[key] for key in keys})
    parts = [(key, *read_cell_predictions(folder, key, checksums[key], brought)) for key in keys]
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


def examples_content(
    labels: NDArray[np.int64], groups: NDArray[np.int64], answers: NDArray[Any] | None = None
) -> bytes:
    """The file that says what every example of the encoded data is.

    Args:
        labels, groups: (n,), the label of each and its group.
        answers: (n, ...), what is right of it, where a label says not all; the label is then what it was stratified by.
    """
    arrays: dict[str, NDArray[Any]] = {
        "label": np.asarray(labels, dtype=np.int64),
        "group": np.asarray(groups, dtype=np.int64),
    }
    if answers is not None:
        arrays["answer"] = answers
    return _content(**arrays)


def read_examples(folder: str | Path) -> pd.DataFrame:
    """What the predicted examples are: their true ``label`` and their ``group``, by position in the encoded data; and
    where a label says not all, what is right of them as t0, t1, ...

    Raises:
        StudyError: the file is damaged.
    """
    folder = Path(folder)
    path = examples_path(folder)
    try:
        with np.load(io.BytesIO(_read(folder, path, _UNKNOWN)), allow_pickle=False) as arrays:
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


def keep_file(path: Path, content: bytes) -> None:
    """Write a file of a study, whole or not at all, unless it is there."""
    try:
        same = path.read_bytes() == content
    except OSError:
        same = False
    if not same:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)


def _read(folder: Path, path: Path, checksum: str | None) -> bytes:
    """A file of a study, from the folder or, if the study is in PostgreSQL, from there where the folder's is not it.

    Raises:
        FileNotFoundError: there is none.
    """
    found = _fetch(folder, {path: checksum})
    return found[path.name] if path.name in found else path.read_bytes()


def _fetch(folder: Path, wanted: Mapping[Path, str | None]) -> dict[str, bytes]:
    """Bring from the database what of the files is not here as it was recorded, and keep copies of it.

    Args:
        folder: the study's.
        wanted: files with their checksums.

    Returns:
        what was brought, by name.
    """
    address = address_in(folder)
    found: dict[str, bytes] = {}
    if address is None:
        return found
    lacking = [path for path, checksum in wanted.items() if not _is_here(path, checksum)]
    for start in range(0, len(lacking), _AT_ONCE):
        part = {path.name: path for path in lacking[start : start + _AT_ONCE]}
        for name, content in read_files(address, list(part)).items():
            found[name] = content
            with suppress(OSError):  # a folder that cannot be written to
                keep_file(part[name], content)
    return found


def _is_here(path: Path, checksum: str | None) -> bool:
    try:
        return checksum is not None and checksum_of(path.read_bytes()) == checksum
    except OSError:
        return False


def _database(folder: Path) -> str:
    address = address_in(folder)
    return STUDY_FILE if address is None else address.storage


def _remedy(folder: Path) -> str:
    if address_in(folder) is not None:
        return "a backup of the database has it"
    return f"lora-search doctor {folder} mends the study"
