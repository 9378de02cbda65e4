"""A study folder -> frames. The light door of the store: pandas, numpy and SQLite, no Optuna, no torch.

Reading never writes, never waits for a run that is writing, and sees only what that run has finished recording.
"""

from __future__ import annotations

import sqlite3
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_search.errors import StudyError
from lora_search.spec import Experiment, closest
from lora_search.spec.paths import kind_of
from lora_search.store.database import read_facts, read_header, reading
from lora_search.store.files import STUDY_FILE, VERDICT_FILE
from lora_search.store.frames import cells_frame, trials_frame
from lora_search.store.predictions import examples_path, read_cell_predictions
from lora_search.store.records import CellKey
from lora_search.store.verdicts import check_trials, named_trials, read_verdict


@dataclass(frozen=True, eq=False)
class StudyTables:
    """One study as it stood when it was read.

    Attributes:
        folder: where it is.
        experiment: what was asked.
        environment: versions, hardware, seeds and fold hashes of the first run; of later, different runs under
            ``resumed_in``.
        trials: one row per trial: trial, state, origin, rank, alpha, targets, layers, scaling, learning_rate, dropout,
            adapter_parameters, head_parameters, cells (complete ones), score_mean, score_std, seconds, wall_seconds,
            failure.
        cells: one row per recorded cell: trial, repeat, fold, state, score (the verdict's metric), accuracy, macro_f1,
            matthews_correlation, log_loss, train_loss, examples, train_examples, steps, tokens, seconds, wall_seconds,
            pack, pack_cells, failure, finished_at.
        facts: what was measured once and is kept on resume.
    """

    folder: Path
    experiment: Experiment = field(repr=False)
    environment: dict[str, Any] = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    cells: pd.DataFrame = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    def predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions of every complete cell; see ``read_predictions``."""
        return read_predictions(self.folder)

    def examples(self) -> pd.DataFrame:
        """True ``label`` and ``group`` of every example of the encoded data; empty in a study that never trained.

        Raises:
            StudyError: the file is damaged.
        """
        return read_examples(self.folder)

    def verdict(self) -> dict[str, Any] | None:
        """``verdict.json``, or ``None`` before the first verdict.

        Raises:
            StudyError: the file is damaged, or no verdict on this study.
        """
        path = self.folder / VERDICT_FILE
        verdict = read_verdict(path)
        if verdict is not None and not named_trials(verdict) <= set(self.trials["trial"]):
            # a study that went on since these tables were read may have a verdict on later trials
            check_trials(path, verdict, _recorded_trials(self.folder))
        return verdict


def read_study(folder: str | Path) -> StudyTables:
    """Everything a study has recorded but its predictions.

    Raises:
        StudyError: no study there, or a damaged one.
    """
    folder = Path(folder)
    _check_is_study(folder)
    with reading(folder) as connection:
        return tables_of(folder, connection)


def _recorded_trials(folder: Path) -> set[int]:
    with reading(folder) as connection:
        return {int(number) for (number,) in connection.execute("select trial from lora_trials")}


def tables_of(folder: Path, connection: sqlite3.Connection) -> StudyTables:
    """As ``read_study``, over an open connection."""
    header = read_header(folder, connection)
    cells = cells_frame(connection, header.experiment.verdict.metric)
    trials = trials_frame(connection, cells)
    return StudyTables(folder, header.experiment, header.environment(), trials, cells, read_facts(connection))


def read_predictions(folder: str | Path) -> pd.DataFrame:
    """The out-of-fold predictions of every complete cell.

    Returns:
        One row per cell and example, sorted by trial, repeat and fold: trial, repeat, fold, example (position in the
        encoded data), and the probability of each label as p0, p1, ... (float32). No p columns before the first cell.

    Raises:
        StudyError: no study there, or a prediction file missing or damaged.
    """
    folder = Path(folder)
    _check_is_study(folder)
    query = "select trial, repeat, fold from lora_cells where state = 'complete' order by trial, repeat, fold"
    with reading(folder) as connection:
        keys = [CellKey(*row) for row in connection.execute(query)]
    parts = [(key, *read_cell_predictions(folder, key)) for key in keys]
    sizes = [len(examples) for _, examples, _ in parts]
    columns: dict[str, Any] = {
        name: np.repeat(np.array([getattr(key, name) for key in keys], dtype=np.int64), sizes)
        for name in ("trial", "repeat", "fold")
    }
    columns["example"] = np.concatenate([np.zeros(0, dtype=np.int64), *(examples for _, examples, _ in parts)])
    if parts:
        probabilities = np.concatenate([part for *_, part in parts])
        columns |= {f"p{label}": probabilities[:, label] for label in range(probabilities.shape[1])}
    return pd.DataFrame(columns)


def read_examples(folder: str | Path) -> pd.DataFrame:
    """What the predicted examples are: their true ``label`` and their ``group``, by position in the encoded data.

    Raises:
        StudyError: the file is damaged.
    """
    path = examples_path(Path(folder))
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return pd.DataFrame({"label": arrays["label"], "group": arrays["group"]})
    except FileNotFoundError:
        return pd.DataFrame({"label": np.zeros(0, dtype=np.int64), "group": np.zeros(0, dtype=np.int64)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StudyError(f"{path}: must be the labels of the examples, got a damaged file: {error}") from error


def list_studies(results: str | Path) -> list[Path]:
    """The study folders directly inside a results folder, by name; none if there is no such folder."""
    results = Path(results)
    return sorted(path.parent for path in results.glob(f"*/{STUDY_FILE}")) if results.is_dir() else []


def _check_is_study(folder: Path) -> None:
    if kind_of(folder / STUDY_FILE, error=StudyError) != "file":
        names = [study.name for study in list_studies(folder.parent)]
        nearest = closest(folder.name, names)
        ending = "" if nearest is None else f", did you mean {folder.parent / nearest}?"
        found = f"a folder without {STUDY_FILE}" if folder.is_dir() else "no such folder"
        raise StudyError(f"{folder}: must be the folder of a study, got {found}{ending}")
