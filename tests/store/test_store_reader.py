"""The light door: tables and predictions of a study, finished or being written, without touching it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builders import ENVIRONMENT, as_format_1, cell, experiment, failed_cell, trial, verdict

from lora_search.errors import StudyError
from lora_search.store.ledger import Ledger
from lora_search.store.predictions import (
    examples_content,
    examples_path,
    keep_file,
    predictions_content,
    predictions_path,
    read_cell_predictions,
    read_examples,
)
from lora_search.store.reader import list_studies, read_predictions, read_study
from lora_search.store.records import CellKey
from lora_search.store.verdicts import read_verdict

TRIAL_COLUMNS = [
    "trial",
    "state",
    "origin",
    "rank",
    "alpha",
    "targets",
    "layers",
    "scaling",
    "use_dora",
    "bias",
    "rank_pattern",
    "learning_rate",
    "dropout",
    "adapter_parameters",
    "head_parameters",
    "cells",
    "score_mean",
    "score_std",
    "seconds",
    "wall_seconds",
    "failure",
]
CELL_COLUMNS = [
    "trial",
    "repeat",
    "fold",
    "state",
    "score",
    "accuracy",
    "macro_f1",
    "matthews_correlation",
    "log_loss",
    "train_loss",
    "examples",
    "train_examples",
    "steps",
    "tokens",
    "seconds",
    "wall_seconds",
    "pack",
    "pack_cells",
    "failure",
    "finished_at",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of three trials: two folds of one, a failed cell in the other, none of the last."""
    folder = tmp_path / "results" / "reviews"
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        for number in (2, 0, 1):
            ledger.add_trial(trial(number, origin="guess" if number == 0 else "sampler"))
        ledger.add_cell(cell(1, 0, 1, seconds=2.0, wall_seconds=10.0, pack_cells=4))
        ledger.add_cell(failed_cell(1, 1, 0))
        ledger.add_cell(cell(0, 0, 2, seconds=1.0, wall_seconds=9.0, pack_cells=3))
        ledger.add_cell(cell(0, 0, 0, seconds=2.5, wall_seconds=8.0, pack_cells=2))
        ledger.set_trial_state(0, "complete")
        ledger.set_trial_state(1, "failed", "the loss became NaN")
        ledger.write_tables()
    return folder


def test_the_table_of_cells(folder: Path) -> None:
    cells = read_study(folder).cells
    assert list(cells.columns) == CELL_COLUMNS
    assert cells[["trial", "repeat", "fold"]].to_numpy().tolist() == [[0, 0, 0], [0, 0, 2], [1, 0, 1], [1, 1, 0]]
    assert cells["state"].tolist() == ["complete", "complete", "complete", "failed"]
    # The experiment's metric is macro_f1, which the builder makes 0.6 + 0.01 fold.
    np.testing.assert_allclose(cells["score"], [0.60, 0.62, 0.61, np.nan])
    np.testing.assert_allclose(cells["accuracy"], [0.50, 0.52, 0.51, np.nan])
    assert cells["train_loss"].isna().tolist() == [False, False, False, True]
    assert cells["examples"].tolist() == [7, 7, 7, 0]
    assert cells["failure"].tolist() == [None, None, None, "the loss became NaN in step 3"]
    age = pd.Timestamp.now("UTC") - cells["finished_at"]
    assert age.between(pd.Timedelta(seconds=-1), pd.Timedelta(hours=1)).all()


def test_the_table_of_trials(folder: Path) -> None:
    trials = read_study(folder).trials
    assert list(trials.columns) == TRIAL_COLUMNS
    assert trials["trial"].tolist() == [0, 1, 2]
    assert trials["state"].tolist() == ["complete", "failed", "running"]
    assert trials["origin"].tolist() == ["guess", "sampler", "sampler"]
    assert trials.loc[0, "rank":"scaling"].tolist() == [8, 16.0, "query+value", "top-1/2", "lora"]
    assert trials.loc[0, "use_dora":"dropout"].tolist() == [False, "none", "uniform", 1e-3, 0.1]
    assert trials.loc[0, ["adapter_parameters", "head_parameters"]].tolist() == [8000, 770]
    assert trials["cells"].tolist() == [2, 1, 0]
    np.testing.assert_allclose(trials["score_mean"], [0.61, 0.61, np.nan])
    # Two scores 0.02 apart have a sample standard deviation of 0.02 / sqrt(2).
    np.testing.assert_allclose(trials["score_std"], [0.02 / np.sqrt(2), np.nan, np.nan])
    # A failed cell costs as well: 1.5 seconds, and 8 / 4 of the clock.
    np.testing.assert_allclose(trials["seconds"], [3.5, 3.5, 0.0])
    np.testing.assert_allclose(trials["wall_seconds"], [9 / 3 + 8 / 2, 10 / 4 + 8 / 4, 0.0])
    assert trials["failure"].tolist() == [None, "the loss became NaN", None]


def test_the_csv_files_are_the_tables(folder: Path) -> None:
    study = read_study(folder)
    trials, cells = pd.read_csv(folder / "trials.csv"), pd.read_csv(folder / "cells.csv")
    assert (list(trials.columns), list(cells.columns)) == (TRIAL_COLUMNS, CELL_COLUMNS)
    for name in ("trial", "score_mean", "score_std", "learning_rate", "wall_seconds"):
        np.testing.assert_array_equal(trials[name], study.trials[name])
    for name in ("trial", "repeat", "fold", "score", "log_loss", "seconds"):
        np.testing.assert_array_equal(cells[name], study.cells[name])
    assert cells["finished_at"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()


def test_an_empty_study_has_the_same_columns_and_types(tmp_path: Path, folder: Path) -> None:
    with Ledger.open(tmp_path / "empty", experiment(), ENVIRONMENT) as ledger:
        ledger.write_tables()
    empty, full = read_study(tmp_path / "empty"), read_study(folder)
    assert (len(empty.trials), len(empty.cells)) == (0, 0)
    pd.testing.assert_series_equal(empty.trials.dtypes, full.trials.dtypes)
    pd.testing.assert_series_equal(empty.cells.dtypes, full.cells.dtypes)
    assert empty.verdict() is None
    assert list(read_predictions(tmp_path / "empty").columns) == ["trial", "repeat", "fold", "example"]


def test_predictions_are_one_row_per_cell_and_example(folder: Path) -> None:
    frame = read_predictions(folder)
    assert list(frame.columns) == ["trial", "repeat", "fold", "example", "p0", "p1", "p2"]
    assert frame[["trial", "repeat", "fold"]].drop_duplicates().to_numpy().tolist() == [[0, 0, 0], [0, 0, 2], [1, 0, 1]]
    expected = cell(0, 0, 2)
    mine = frame[(frame["trial"] == 0) & (frame["fold"] == 2)]
    np.testing.assert_array_equal(mine["example"], expected.examples)
    np.testing.assert_array_equal(mine[["p0", "p1", "p2"]].to_numpy(), expected.probabilities)
    assert frame["p0"].dtype == np.float32


@given(st.integers(0, 40), st.integers(1, 5), st.data())
def test_predictions_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, examples: int, labels: int, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.floats(0, 1, width=32), min_size=examples * labels, max_size=examples * labels))
    indices = data.draw(st.lists(st.integers(0, 2**62), min_size=examples, max_size=examples))
    result = cell(
        12345,
        examples=np.array(indices, dtype=np.int64),
        probabilities=np.array(numbers, dtype=np.float32).reshape(examples, labels),
    )
    folder = tmp_path_factory.getbasetemp()
    keep_file(predictions_path(folder, result.key), predictions_content(result))
    kept_examples, kept_probabilities = read_cell_predictions(folder, result.key)
    np.testing.assert_array_equal(kept_examples, result.examples)
    assert kept_probabilities.dtype == np.float32
    np.testing.assert_array_equal(kept_probabilities, result.probabilities)


def test_a_study_can_be_read_while_it_is_written(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_cell(cell(2, 0, 0))
        assert read_study(folder).cells["trial"].tolist() == [0, 0, 1, 1, 2]
        pd.testing.assert_frame_equal(read_study(folder).trials, ledger.tables().trials)
        ledger.add_cell(cell(2, 0, 1))
        assert read_study(folder).trials["cells"].tolist() == [2, 1, 2]
        assert set(read_predictions(folder)["trial"]) == {0, 1, 2}


def test_reading_leaves_nothing_behind(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    folder.chmod(0o555)
    try:
        read_study(folder)
        read_predictions(folder)
    finally:
        folder.chmod(0o755)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_moved_study_reads_and_goes_on(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "elsewhere")
    assert len(read_predictions(moved)) == 21
    with Ledger.open(moved, experiment(), ENVIRONMENT) as ledger:
        ledger.add_cell(cell(2))
        assert len(ledger.optuna_study().trials) == 0


def test_where_there_is_no_study(folder: Path, tmp_path: Path) -> None:
    near = folder.parent / "revews"
    for read in (read_study, read_predictions):
        with pytest.raises(StudyError) as caught:
            read(near)
        assert caught.value.mistakes == (
            f"{near}: must be the folder of a study, got no such folder, did you mean {folder}?",
        )
    with pytest.raises(StudyError, match=r"got a folder without study\.db"):
        read_study(folder / "predictions")


def test_lost_and_damaged_files_are_named(folder: Path) -> None:
    path = folder / "predictions" / "trial-0001-repeat-0-fold-1.npz"
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-30], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(
            StudyError, match=r"fold-1\.npz: must be the predictions of trial 1, repeat 0, fold 1, got a"
        ):
            read_predictions(folder)
    np.savez(path, example=np.array([object()]), probability=np.zeros((1, 2)))
    with pytest.raises(StudyError, match="got a damaged file"):
        read_predictions(folder)
    path.unlink()
    with pytest.raises(
        StudyError, match=r"fold-1\.npz: is missing, and study\.db says that trial 1, repeat 0, fold 1 is"
    ):
        read_predictions(folder)
    (folder / "study.db").write_bytes(b"SQLite format 3\x00" + b"?" * 5000)
    with pytest.raises(StudyError, match="damaged or foreign"):
        read_study(folder)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "must be JSON, got a damaged file: "),
        ("[" * 100_000, "must be JSON, got a damaged file: "),
        ("[]", "must be a JSON object, got list; delete it, and the study is judged anew"),
        ("{}", "must be a verdict, got one without status, sentence, recommended, best and 12 more; delete it, and"),
        (json.dumps(verdict(recommended=None)), "must be a verdict, got one whose recommended is wrong: must be a"),
        (json.dumps(verdict(best={"trial": 1})), "must be a verdict, got one without best.adapter, best.score_mean, "),
        (json.dumps(verdict(margin="wide")), "must be a verdict, got one whose margin is wrong: input should be"),
        (
            json.dumps(verdict(best=verdict()["best"] | {"trial": 99})),
            "must be a verdict on this study's trials, got one",
        ),
        (json.dumps(verdict(comparisons=[{}])), "must be a verdict, got one without comparisons.0.trial, "),
    ],
)
def test_a_damaged_verdict_is_named_and_the_study_judged_anew(folder: Path, content: str, rule: str) -> None:
    path = folder / "verdict.json"
    path.write_text(content)
    if "this study's trials" not in rule:
        with pytest.raises(StudyError) as caught:
            read_verdict(path)
        (mistake,) = caught.value.mistakes
        assert mistake.startswith(f"{path}: {rule}")
        assert "\n" not in mistake
    as_format_1(folder)  # in which a verdict is kept in this file alone
    assert read_study(folder).verdict() is None


@pytest.mark.parametrize(
    "content", [verdict(), verdict(news=1), verdict(status="no-trials", recommended=None, best=None)]
)
def test_a_verdict_reads_back_as_it_was_written(folder: Path, content: dict[str, Any]) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.write_verdict(content)
    assert read_study(folder).verdict() == content


def test_tables_keep_the_verdict_on_their_own_trials(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.write_verdict(verdict())
        before = read_study(folder)
        later = int(before.trials["trial"].max()) + 1
        ledger.add_trial(trial(later))
        ledger.write_verdict(verdict(best=verdict()["best"] | {"trial": later}))
        ledger.add_cell(cell(later))
    assert before.verdict() == verdict()
    assert set(before.predictions()["trial"]) == {0, 1}
    now = read_study(folder).verdict()
    assert now is not None
    assert now["best"]["trial"] == later
    (folder / "verdict.json").write_text("{")
    assert read_study(folder).verdict() == now, "the file is for others"


def test_a_study_of_format_1_reads_and_goes_on(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.write_verdict(verdict())
    expected = read_study(folder)
    as_format_1(folder)
    (folder / "predictions" / "trial-0000-repeat-0-fold-2.npz").unlink()
    before = read_study(folder)
    for study in (before, expected):
        assert study.verdict() == verdict()
    pd.testing.assert_frame_equal(before.cells, expected.cells, check_exact=True)
    pd.testing.assert_frame_equal(before.trials, expected.trials, check_exact=True)
    assert set(before.checksums.values()) == {None}
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_cell(cell(2))
        after = ledger.tables()
    pd.testing.assert_frame_equal(after.cells.iloc[:4], expected.cells, check_exact=True)
    assert after.verdict() == verdict()
    assert after.checksums == {
        **expected.checksums,
        CellKey(0, 0, 2): None,
        CellKey(2, 0, 0): after.checksums[CellKey(2, 0, 0)],
    }


def test_predictions_of_another_cell_in_its_place_are_noticed(folder: Path) -> None:
    files = folder / "predictions"
    (files / "trial-0000-repeat-0-fold-0.npz").replace(files / "trial-0000-repeat-0-fold-2.npz")
    with pytest.raises(StudyError, match=r"fold-0\.npz: is missing, .*; lora-search doctor .* mends the study$"):
        read_predictions(folder)
    with Ledger.open(folder, experiment(), ENVIRONMENT):
        pass
    (files / "trial-0000-repeat-0-fold-0.npz").write_bytes((files / "trial-0000-repeat-0-fold-2.npz").read_bytes())
    with pytest.raises(
        StudyError, match=r"fold-2\.npz: must be the predictions of .* got a damaged file: its checksum"
    ):
        read_predictions(folder)


def test_scores_may_be_of_any_name(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "s", experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(failed_cell(0, 0, 0))
        ledger.add_cell(cell(0, 0, 1, scores={"macro_f1": 0.25, "span_f1": 1 / 3, "spans": float("nan")}))
        cells = ledger.tables().cells
    assert list(cells.columns[4:8]) == ["score", "macro_f1", "span_f1", "spans"]
    np.testing.assert_array_equal(cells["score"], [np.nan, 0.25])
    np.testing.assert_array_equal(cells["span_f1"], [np.nan, 1 / 3])
    assert cells["spans"].isna().all()


def test_a_study_that_cannot_be_looked_up(tmp_path: Path) -> None:
    long = tmp_path / ("s" * 300)
    for read in (read_study, read_predictions):
        with pytest.raises(StudyError, match=r"study\.db: must be a path that can be looked up, got File name too"):
            read(long)
    with pytest.raises(StudyError, match=r"must be a path that can be looked up, got File name too long"):
        Ledger.open(long, experiment(), ENVIRONMENT)


def test_studies_are_listed_by_name(folder: Path) -> None:
    results = folder.parent
    for name in ("b", "a"):
        with Ledger.open(results / name, experiment(name=name), ENVIRONMENT):
            pass
    (results / "notes").mkdir()
    (results / "file").touch()
    assert [path.name for path in list_studies(results)] == ["a", "b", "reviews"]
    assert list_studies(results / "nowhere") == []


def test_a_study_prints_in_one_line(folder: Path) -> None:
    assert repr(read_study(folder)) == f"StudyTables(folder={folder!r})"


def test_keys_sort_and_print() -> None:
    assert sorted([CellKey(1, 0, 0), CellKey(0, 1, 0), CellKey(0, 0, 2)])[0] == CellKey(0, 0, 2)
    assert str(CellKey(3, 0, 1)) == "trial 3, repeat 0, fold 1"


def test_the_reader_opens_on_any_laptop(folder: Path) -> None:
    code = (
        "import sys\n"
        "from lora_search.store import reader\n"
        "assert len(reader.read_study(sys.argv[1]).cells) == 4\n"
        "assert len(reader.read_predictions(sys.argv[1])) == 21\n"
        "heavy = {'torch', 'transformers', 'optuna', 'datasets', 'sqlalchemy', 'peft', 'sklearn', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("bit", [0x01, 0xFF])
def test_examples_damaged_at_any_byte_are_read_or_named(tmp_path: Path, bit: int) -> None:
    keep_file(examples_path(tmp_path), examples_content(np.arange(30) % 2, np.arange(30)))
    path = examples_path(tmp_path)
    whole = path.read_bytes()
    refused = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            read_examples(tmp_path)
        except StudyError as error:
            refused.append(str(error))
    assert len(refused) > len(whole) / 2
    assert all(str(path) in message for message in refused)
