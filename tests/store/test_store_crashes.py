"""A run killed at any moment: the study is as before or after the write under way, and goes on to the same end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_builders import ENVIRONMENT, cell, experiment, trial
from store_crash_child import scenario

from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_predictions, read_study
from lora_search.store.records import CellKey

RECORDED = ["trial", "repeat", "fold", "state", "score", "accuracy", "log_loss", "examples", "pack", "failure"]


def killed_runs(folder: Path, steps: range) -> list[Path]:
    """The folders of runs killed at these steps, of which the whole scenario takes about 60."""
    child = Path(__file__).with_name("store_crash_child.py")
    command = [sys.executable, child, folder, str(steps.start), str(steps.stop), str(steps.step)]
    # One thread each: the child forks.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(command, check=True, env=environment, timeout=600)
    return [folder / str(step) for step in steps]


def check_what_is_recorded(folder: Path) -> int:
    """Every recorded cell is whole, and they are the first ones of the scenario; returns how many there are."""
    study, predictions = read_study(folder), read_predictions(folder)
    keys = list(zip(study.cells["repeat"], study.cells["fold"], strict=True))
    assert keys == [(0, 0), (0, 1), (0, 2)][: len(keys)]
    for fold in (fold for _, fold in keys if fold != 1):
        mine = predictions[predictions["fold"] == fold]
        expected = cell(1, 0, fold)
        np.testing.assert_array_equal(mine["example"], expected.examples)
        np.testing.assert_array_equal(mine[["p0", "p1", "p2"]], expected.probabilities)
    return len(keys)


def check_it_goes_on_to_the_same_end(folder: Path, undisturbed: Path) -> None:
    scenario(folder)
    expected, now = read_study(undisturbed), read_study(folder)
    pd.testing.assert_frame_equal(now.cells[RECORDED], expected.cells[RECORDED])
    pd.testing.assert_frame_equal(now.trials, expected.trials)
    assert (now.facts, now.environment, now.experiment) == (expected.facts, expected.environment, expected.experiment)
    for name in ("experiment.toml", "environment.json", "trials.csv"):
        assert (folder / name).read_text() == (undisturbed / name).read_text()
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {path.name for path in undisturbed.iterdir() if not path.name.startswith(".")}
    assert sorted(path.name for path in (folder / "predictions").glob("trial*")) == [
        "trial-0001-repeat-0-fold-0.npz",
        "trial-0001-repeat-0-fold-2.npz",
    ]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Path:
    folder = tmp_path / "undisturbed"
    scenario(folder)
    return folder


def test_killed_while_the_study_is_made(tmp_path: Path, undisturbed: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    made = []
    for folder in killed_runs(runs, range(1, 24, 2)):
        made.append((folder / "study.db").exists())
        if made[-1]:
            check_what_is_recorded(folder)
        check_it_goes_on_to_the_same_end(folder, undisturbed)
    assert made == sorted(made)
    assert set(made) == {False, True}


def test_killed_while_a_study_goes_on(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Ledger.open(runs / "start", experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_trial(trial(1))
        ledger.add_cell(cell(1, 0, 0))
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(runs / "start", undisturbed)
    scenario(undisturbed)
    counts = []
    for folder in killed_runs(runs, range(9, 60, 3)):
        counts.append(check_what_is_recorded(folder))
        check_it_goes_on_to_the_same_end(folder, undisturbed)
    assert counts == sorted(counts)
    assert set(counts) == {1, 2, 3}


def test_predictions_without_a_row_are_not_a_cell(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "s", experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0, 0, 0))
        shutil.copy(
            tmp_path / "s" / "predictions" / "trial-0000-repeat-0-fold-0.npz",
            tmp_path / "s" / "predictions" / "trial-0000-repeat-0-fold-1.npz",
        )
        assert ledger.cell_keys() == {CellKey(0, 0, 0)}
        assert set(read_predictions(tmp_path / "s")["fold"]) == {0}
        ledger.add_cell(cell(0, 0, 1))
    np.testing.assert_array_equal(
        read_predictions(tmp_path / "s").query("fold == 1")["example"], cell(0, 0, 1).examples
    )
