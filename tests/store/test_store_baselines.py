"""Trainings of baselines in a study's folder: recorded, read, told as a table, mended; older studies have none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_builders import ENVIRONMENT, cell, experiment, failed_cell, trial

from lora_search.store.ledger import Ledger
from lora_search.store.mending import mend_study
from lora_search.store.predictions import predictions_path
from lora_search.store.reader import read_study
from lora_search.store.records import BaselineKey, BaselineResult

FULL = BaselineKey("full", 3e-5, 0, 1)
MAJORITY = BaselineKey("majority", None, 0, 0)


def recorded(folder: Path) -> Path:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0))
        ledger.add_baseline(BaselineResult(FULL, cell(7, 0, 1), 22_000_000, 5_000_000))
        ledger.add_baseline(BaselineResult(BaselineKey("full", 1e-2, 0, 0), failed_cell(7), 22_000_000, None))
        ledger.add_baseline(BaselineResult(MAJORITY, cell(8), 0, None))
        ledger.write_tables()
    return folder


def test_what_was_recorded_is_read(tmp_path: Path) -> None:
    tables = read_study(recorded(tmp_path / "reviews"))
    found = tables.baselines
    assert list(found["baseline"]) == ["full", "full", "majority"]
    assert list(found["learning_rate"].fillna(-1)) == [3e-5, 1e-2, -1]
    assert list(found["state"]) == ["complete", "failed", "complete"]
    assert list(found["score"].fillna(-1)) == [0.61, -1, 0.6]
    assert list(found["trainable_parameters"]) == [22_000_000, 22_000_000, 0]
    assert list(found["step_bytes"].fillna(-1)) == [5_000_000, -1, -1]
    assert len(tables.cells) == len(tables.trials) == 1
    predictions = tables.baseline_predictions()
    assert list(predictions.columns) == ["baseline", "learning_rate", "repeat", "fold", "example", "p0", "p1", "p2"]
    mine = predictions[predictions["baseline"] == "full"]
    assert np.array_equal(mine[["p0", "p1", "p2"]].to_numpy(), cell(7, 0, 1).probabilities)
    assert predictions["learning_rate"].isna().sum() == 7


def test_the_table_is_a_file_of_its_own(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "reviews")
    table = pd.read_csv(folder / "baselines.csv")
    assert list(table.columns)[:7] == ["baseline", "learning_rate", "repeat", "fold", "state", "score", "accuracy"]
    assert predictions_path(folder, FULL).name == "baseline-full-3e-05-repeat-0-fold-1.npz"
    assert predictions_path(folder, MAJORITY).name == "baseline-majority-repeat-0-fold-0.npz"
    assert all(predictions_path(folder, key).is_file() for key in (FULL, MAJORITY))


def test_a_study_without_them_has_no_such_file(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "reviews", experiment(), ENVIRONMENT) as ledger:
        ledger.write_tables()
    assert not (tmp_path / "reviews" / "baselines.csv").exists()
    tables = read_study(tmp_path / "reviews")
    assert tables.baselines.empty
    assert tables.baseline_predictions().empty


def test_nothing_is_recorded_twice(tmp_path: Path) -> None:
    with Ledger.open(recorded(tmp_path / "reviews"), experiment(), ENVIRONMENT) as ledger:
        assert ledger.baseline_keys() == {FULL, BaselineKey("full", 1e-2, 0, 0), MAJORITY}
        with pytest.raises(ValueError, match="training must be new, got full, learning rate 3e-05, repeat 0, fold 1"):
            ledger.add_baseline(BaselineResult(FULL, cell(7, 0, 1), 1, None))


def test_a_study_of_before_there_were_any_opens_and_goes_on(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "reviews")
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.execute("drop table lora_baselines")
        header = database.execute("select value from lora_study where key = 'experiment'").fetchone()[0]
        assert '"baselines"' in header
        older = header.replace(header[header.index(',"baselines"') : header.index(',"verdict"')], "")
        database.execute("update lora_study set value = ? where key = 'experiment'", (older,))
        database.commit()
    assert read_study(folder).baselines.empty
    with Ledger.open(folder, experiment(baselines={"include": ["full"]}), ENVIRONMENT) as ledger:
        assert ledger.baseline_keys() == set()
        ledger.add_baseline(BaselineResult(FULL, cell(7, 0, 1), 1, None))
    assert list(read_study(folder).baselines["baseline"]) == ["full"]


def test_a_training_whose_predictions_are_gone_is_forgotten_and_trained_again(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "reviews")
    predictions_path(folder, FULL).unlink()
    told = {finding.what: finding.found for finding in mend_study(folder)}
    assert told["predictions"].startswith("1 of 3 are broken and forgotten")
    assert list(read_study(folder).baselines["learning_rate"].fillna(-1)) == [1e-2, -1]
    assert len(read_study(folder).cells) == 1
    assert list(read_study(folder).trials["state"]) == ["running"]
