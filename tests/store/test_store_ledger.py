"""What a study keeps, on what terms it goes on, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from store_builders import ENVIRONMENT, another_run, cell, experiment, failed_cell, trial

from lora_search.errors import StudyError
from lora_search.spec import Experiment, load_experiment
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "reviews"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder: Path, asked: Experiment) -> tuple[str, ...]:
    with pytest.raises(StudyError) as caught:
        Ledger.open(folder, asked, ENVIRONMENT)
    return caught.value.mistakes


def test_a_new_study_is_a_folder_with_the_resolved_experiment(folder: Path) -> None:
    asked = experiment(search={"rank": [2, 4]})
    with Ledger.open(folder, asked, ENVIRONMENT):
        assert load_experiment(folder / "experiment.toml") == asked
        assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT
    assert {path.name for path in folder.iterdir()} == {"study.db", "experiment.toml", "environment.json", ".lock"}


def test_a_cell_that_contradicts_itself_is_no_record() -> None:
    with pytest.raises(ValueError, match=r"scores must be given for a complete cell and for no other, got \{\}"):
        cell(0, scores={})
    with pytest.raises(ValueError, match=r"scores must be given for a complete cell and for no other, got \{'acc"):
        failed_cell(0, scores={"accuracy": 0.5})
    with pytest.raises(ValueError, match="failure must be given for a failed cell"):
        cell(0, state="failed")
    with pytest.raises(ValueError, match=r"got \(7,\) and \(6, 3\)"):
        cell(0, probabilities=np.zeros((6, 3), dtype=np.float32))


def test_the_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a b", "50%", "a?b=c#d", "{SCHEMA_VERSION}", "é"):
        with Ledger.open(tmp_path / name / "reviews", experiment(), ENVIRONMENT) as ledger:
            ledger.add_trial(trial(0))
        assert len(read_study(tmp_path / name / "reviews").trials) == 1


def test_another_experiment_is_refused_with_every_difference_and_nothing_touched(folder: Path) -> None:
    rates = {"low": 2e-4, "high": 4e-3}
    with Ledger.open(folder, experiment(search={"rank": [1, 2], "learning_rate": rates}), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0))
        ledger.write_tables()
    before = contents(folder)
    other = experiment(
        seed=1,
        data={"group": "film"},
        search={"rank": 4, "trials": 3, "learning_rate": {"low": 2e-4, "high": 0.1}},
    )
    assert refusal(folder, other) == (
        f"{folder}: seed: the study has 0, the experiment says 1",
        f'{folder}: data.group: the study has nothing, the experiment says "film"',
        f"{folder}: search.rank: the study has [1, 2], the experiment says [4]",
        f"{folder}: search.learning_rate.high: the study has 0.004, the experiment says 0.1",
        f"{folder}: is another experiment's study; give this one another name",
    )
    fixed = experiment(search={"rank": [1, 2], "learning_rate": 0.001})
    assert refusal(folder, fixed)[0] == (
        f"{folder}: search.learning_rate: the study has {{ low = 0.0002, high = 0.004 }}, the experiment says 0.001"
    )
    assert contents(folder) == before


def test_a_folder_with_files_and_no_study_is_left_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("a.txt", "experiment.toml", "notes", "z"):
        (folder / name).write_text("mine")
    before = contents(folder)
    (mistake,) = refusal(folder, experiment())
    assert mistake == f"{folder}: must be empty or hold a study, got a.txt, experiment.toml, notes, ... and no study.db"
    assert contents(folder) == before
    assert refusal(folder / "notes", experiment()) == (f"{folder / 'notes'}: must be a folder, got a file",)
    below = folder / "notes" / "reviews"
    assert refusal(below, experiment()) == (f"{below}: must be a folder that can be written to, got Not a directory",)


def test_hidden_files_do_not_make_a_folder_somebody_elses(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (".gitkeep", ".lock", ".study.db.tmp", ".study.db.tmp-journal"):
        (folder / name).write_text("rubbish")
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
    assert {path.name for path in folder.glob(".*")} == {".gitkeep", ".lock"}


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "scribbled", "foreign", "newer"])
def test_a_damaged_study_is_refused_and_left_as_it_is(folder: Path, damage: str) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
    path = folder / "study.db"
    whole = path.read_bytes()
    if damage == "foreign":
        path.unlink()
        optuna.create_study(storage=f"sqlite:///{path}", study_name="reviews")
    elif damage == "newer":
        path.write_bytes(whole[:60] + (99).to_bytes(4, "big") + whole[64:])
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"not a database",
                "truncated": whole[: len(whole) // 2],
                "scribbled": whole[:4096] + b"\xa5" * (len(whole) - 4096),
            }[damage]
        )
    before = contents(folder)
    (mistake,) = refusal(folder, experiment())
    assert mistake.startswith(f"{path}: ")
    assert "newer lora-search, of format 99" in mistake if damage == "newer" else "damaged or foreign" in mistake
    assert "\n" not in mistake
    assert contents(folder) == before


def test_one_run_at_a_time_in_this_process_and_in_any_other(folder: Path) -> None:
    with another_run(folder) as process:
        (mistake,) = refusal(folder, experiment())
        assert mistake.startswith(f"{folder}: another run is writing to {folder} (process {process.pid} on ")
        process.kill()  # and the lock goes with it
    with Ledger.open(folder, experiment(), ENVIRONMENT):
        assert "another run is writing to" in refusal(folder, experiment())[0]
    with Ledger.open(folder, experiment(), ENVIRONMENT):
        pass


def test_a_refused_run_does_not_keep_the_folder_locked(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT):
        pass
    refusal(folder, experiment(seed=5))
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.close()
        ledger.close()


def test_the_files_beside_the_database_are_written_again(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
    (folder / "experiment.toml").unlink()
    (folder / "environment.json").write_text("")
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        assert ledger.trials() == [trial(0)]
    assert load_experiment(folder / "experiment.toml") == experiment()
    assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT
