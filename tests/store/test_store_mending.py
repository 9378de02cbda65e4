"""``lora-search doctor STUDY``: what it finds in a study folder, what it mends, and what it leaves alone."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_builders import ENVIRONMENT, as_format_1, cell, experiment, failed_cell, trial, verdict

from lora_search.errors import StudyError
from lora_search.spec.facts import FINALISTS
from lora_search.store import copying
from lora_search.store.database import VERSION
from lora_search.store.files import BACKUP_FILE
from lora_search.store.ledger import Ledger
from lora_search.store.mending import mend_study
from lora_search.store.reader import read_study
from lora_search.store.records import CellKey

SOUND = {
    "database": "sound: 2 trials, 5 trainings, format 2",
    "predictions": "all 4 are there and as they were recorded",
    "examples": "30 labels and groups",
    "files made from it": "all there, up to date",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A judged study: a trial of two folds and an extra repeat, and one that failed."""
    folder = tmp_path / "results" / "reviews"
    with Ledger.open(folder, experiment(cv={"folds": 2}), ENVIRONMENT) as ledger:
        ledger.write_examples(np.zeros(30, dtype=np.int64), np.arange(30))
        for number in range(2):
            ledger.add_trial(trial(number))
        for result in (cell(0, 0, 0), cell(0, 0, 1), cell(0, 1, 0), failed_cell(1, 0, 0), cell(1, 0, 1)):
            ledger.add_cell(result)
        ledger.set_trial_state(0, "complete")
        ledger.set_trial_state(1, "failed", "the loss became NaN in step 3")
        ledger.set_fact(FINALISTS, {"trials": 2, "requests": [[[0, 1, 0]], [[0, 1, 1]]]})
        ledger.write_verdict(verdict())
        ledger.write_tables()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mended(folder: Path, *, sound: bool = True) -> dict[str, str]:
    findings = mend_study(folder)
    assert all(finding.sound for finding in findings) == sound
    return {finding.what: finding.found for finding in findings}


def test_a_sound_study_stays_as_it_is(folder: Path) -> None:
    before = contents(folder)
    assert mended(folder) == SOUND
    assert {**contents(folder), ".lock": b""} == {**before, ".lock": b""}


def test_lost_files_are_made_again_from_the_database(folder: Path) -> None:
    before = contents(folder)
    for name in ("experiment.toml", "trials.csv", "verdict.json"):
        (folder / name).unlink()
    (folder / "cells.csv").write_text("trial\n")
    (folder / "environment.json").write_bytes(b"\xff")
    names = "experiment.toml, environment.json, trials.csv, cells.csv, verdict.json"
    assert mended(folder) == SOUND | {"files made from it": f"written again: {names}"}
    assert {**contents(folder), ".lock": b""} == {**before, ".lock": b""}


def test_leftovers_of_a_crash_are_removed(folder: Path) -> None:
    for name in (".study.db.tmp", ".study.db.tmp-journal", ".cells.csv.tmp", "predictions/.trial-0000.npz.tmp"):
        (folder / name).write_text("half")
    said = mended(folder)["leftovers"]
    assert said.startswith("removed, of writes that were cut short: ")
    assert list(folder.rglob(".*.tmp*")) == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "another's"])
def test_a_training_without_its_predictions_is_forgotten(folder: Path, damage: str) -> None:
    path = folder / "predictions" / "trial-0000-repeat-0-fold-1.npz"
    if damage == "missing":
        path.unlink()
    else:
        other = path.with_name("trial-0000-repeat-0-fold-0.npz").read_bytes()
        path.write_bytes(other if damage == "another's" else other[:50])
    before = read_study(folder)
    said = mended(folder)
    assert said["predictions"].startswith(
        "1 of 4 are broken and forgotten, to be trained again when the study goes on (as it was: "
    )
    after = read_study(folder)
    assert (len(before.cells), len(after.cells)) == (5, 4)
    assert after.trials["state"].tolist() == ["running", "failed"]
    assert (after.verdict(), (folder / "verdict.json").exists()) == (None, False)
    assert FINALISTS.of(after.facts) == {"trials": 2, "requests": [[[0, 1, 0]]]}
    assert len(after.predictions()) == 3 * 7
    with closing(sqlite3.connect(folder / BACKUP_FILE)) as backup:
        assert backup.execute("select count(*) from lora_cells").fetchone() == (5,)
    with Ledger.open(folder, experiment(cv={"folds": 2}), ENVIRONMENT) as ledger:
        ledger.add_cell(cell(0, 0, 1))
    assert mended(folder)["predictions"] == SOUND["predictions"]


def test_every_mend_keeps_what_was_there_before_it(folder: Path) -> None:
    copies = []
    for fold in range(2):
        (folder / "predictions" / f"trial-0000-repeat-0-fold-{fold}.npz").unlink()
        copies.append(mended(folder)["predictions"].partition("(as it was: ")[2].partition(")")[0])
    assert copies == [str(folder / "study-before-doctor.db"), str(folder / "study-before-doctor-2.db")]
    for copy, cells in zip(copies, (5, 4), strict=True):
        with closing(sqlite3.connect(copy)) as backup:
            assert backup.execute("select count(*) from lora_cells").fetchone() == (cells,)


def test_nothing_is_mended_where_no_copy_can_be_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that was cut short is none: the next mend makes one."""

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "predictions" / "trial-0000-repeat-0-fold-1.npz").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(copying.os, "fsync", full)
        with pytest.raises(StudyError, match="must be a folder that can be written to, got No space left on device"):
            mend_study(folder)
    assert len(read_study(folder).cells) == 5
    assert list(folder.glob("*before-doctor*")) == list(folder.glob(".study-before*")) == []
    assert str(folder / BACKUP_FILE) in mended(folder)["predictions"]
    with closing(sqlite3.connect(folder / BACKUP_FILE)) as backup:
        assert backup.execute("select count(*) from lora_cells").fetchone() == (5,)


def test_a_lost_extra_repeat_is_asked_for_again(folder: Path) -> None:
    (folder / "predictions" / "trial-0000-repeat-1-fold-0.npz").unlink()
    mended(folder)
    after = read_study(folder)
    assert after.trials["state"].tolist() == ["complete", "failed"]
    assert FINALISTS.of(after.facts) == {"trials": 2, "requests": [[[0, 1, 0]]]}


def test_predictions_that_belong_to_nothing_are_left(folder: Path) -> None:
    files = folder / "predictions"
    shutil.copy(files / "trial-0000-repeat-0-fold-1.npz", files / "trial-0007-repeat-0-fold-1.npz")
    said = "; 1 more belong to no recorded training: trial-0007-repeat-0-fold-1.npz"
    assert mended(folder)["predictions"] == SOUND["predictions"] + said
    assert (files / "trial-0007-repeat-0-fold-1.npz").exists()


def test_examples_are_missed_and_written_when_the_study_goes_on(folder: Path) -> None:
    path = folder / "predictions" / "examples.npz"
    path.write_bytes(b"half")
    assert "must be the labels of the examples, got a damaged file" in mended(folder, sound=False)["examples"]
    path.unlink()
    assert "is missing; it is written again when the study goes on" in mended(folder, sound=False)["examples"]
    with Ledger.open(folder, experiment(cv={"folds": 2}), ENVIRONMENT) as ledger:
        ledger.write_examples(np.zeros(30, dtype=np.int64), np.arange(30))
    assert mended(folder) == SOUND


def test_an_older_format_is_brought_up_to_date(folder: Path) -> None:
    as_format_1(folder)
    said = mended(folder)
    assert said["format"] == f"was 1 and is {VERSION} now; as it was: {folder / BACKUP_FILE}"
    assert said["predictions"] == SOUND["predictions"]
    assert read_study(folder).verdict() == verdict()


def test_beside_a_run_it_only_looks(folder: Path) -> None:
    with Ledger.open(folder, experiment(cv={"folds": 2}), ENVIRONMENT):
        (folder / "predictions" / "trial-0000-repeat-0-fold-1.npz").unlink()
        (folder / "trials.csv").unlink()
        said = mended(folder, sound=False)
        assert said["folder"].startswith("cannot be written to now, so nothing is mended: ")
        assert "another run is writing to" in said["folder"]
        assert said["predictions"].startswith("1 of 4 are broken: ")
        assert said["files made from it"] == "not up to date: trials.csv"
        assert not (folder / "trials.csv").exists()
        assert CellKey(0, 0, 1) in read_study(folder).checksums


def test_a_damaged_database_is_told_and_not_touched(folder: Path) -> None:
    path = folder / "study.db"
    whole = path.read_bytes()
    (folder / BACKUP_FILE).write_bytes(whole)
    path.write_bytes(whole[: len(whole) // 2])
    before = contents(folder)
    said = mended(folder, sound=False)
    assert said["copy of the database"] == f"{folder / BACKUP_FILE}; rename it to study.db if it is whole"
    assert "must be a study's database, got a damaged or foreign file" in said["database"]
    assert contents(folder) == before


def test_where_there_is_no_study(folder: Path) -> None:
    with pytest.raises(StudyError, match="must be the folder of a study, got no such folder"):
        mend_study(folder.parent / "revews")
