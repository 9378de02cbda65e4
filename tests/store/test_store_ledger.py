"""What a study keeps, on what terms it goes on, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from store_builders import ENVIRONMENT, cell, experiment, failed_cell, trial, verdict

from lora_search.errors import StudyError
from lora_search.spec import Experiment, load_experiment
from lora_search.spec.facts import HOLDOUT, PRECISION, HoldoutScore
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study
from lora_search.store.records import CellKey


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


def test_what_is_recorded_is_there_in_the_next_run(folder: Path) -> None:
    records = [trial(0, origin="guess"), trial(1, rank=2, state="failed", failure="out of memory")]
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        assert (ledger.trials(), ledger.cell_keys(), ledger.next_pack(), ledger.fact(PRECISION)) == (
            [],
            set(),
            0,
            None,
        )
        for record in records:
            ledger.add_trial(record)
        ledger.add_cell(cell(0, 0, 1, pack=4))
        ledger.add_cell(failed_cell(0, 1, 0))
        ledger.set_facts({"budget": {"tokens": np.int64(4096), "ratio": float("nan")}})
        ledger.set_fact(PRECISION, "fp32")
        ledger.set_fact(PRECISION, "bf16")
        ledger.set_fact(HOLDOUT, HoldoutScore(1, {"accuracy": float("nan"), "macro_f1": 0.5}))
        ledger.set_trial_state(0, "pruned")
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        assert ledger.trials() == [trial(0, origin="guess", state="pruned"), records[1]]
        assert ledger.cell_keys() == {CellKey(0, 0, 1), CellKey(0, 1, 0)}
        assert ledger.next_pack() == 5
        assert ledger.fact(PRECISION) == "bf16"
        assert ledger.facts()["budget"] == {"tokens": 4096, "ratio": None}
        kept = ledger.fact(HOLDOUT)
        assert kept is not None
        assert (kept.trial, kept.scores["macro_f1"], kept.failure) == (1, 0.5, None)
        assert np.isnan(kept.scores["accuracy"])
        ledger.set_trial_state(0, "failed", "it stopped")
        assert ledger.trials()[0].failure == "it stopped"


def test_numpy_numbers_are_kept_as_numbers(folder: Path) -> None:
    key = CellKey(*(np.int64(number) for number in (0, 1, 2)))
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0, adapter_parameters=np.int64(123)))
        ledger.add_cell(cell(0, key=key, steps=np.int64(5), seconds=np.float32(0.5), pack=np.int32(3)))
        assert ledger.next_pack() == 4
        tables = ledger.tables()
    assert tables.cells[["repeat", "fold", "steps", "seconds"]].to_numpy().tolist() == [[1, 2, 5, 0.5]]
    assert tables.trials["adapter_parameters"].tolist() == [123]


def test_a_record_is_made_once_and_of_what_exists(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0))
        before = contents(folder / "predictions")
        with pytest.raises(ValueError, match="trial must be new, got 0"):
            ledger.add_trial(trial(0, rank=3))
        with pytest.raises(ValueError, match="cell must be new, got trial 0, repeat 0, fold 0"):
            ledger.add_cell(cell(0, examples=np.arange(7)))
        with pytest.raises(ValueError, match="trial must be a recorded one, got trial 7, repeat 0, fold 0"):
            ledger.add_cell(cell(7))
        with pytest.raises(ValueError, match="trial must be a recorded one, got 7"):
            ledger.set_trial_state(7, "complete")
        assert contents(folder / "predictions") == before
        assert ledger.trials() == [trial(0)]


def test_a_cell_that_contradicts_itself_is_no_record() -> None:
    with pytest.raises(ValueError, match=r"scores must be given for a complete cell and for no other, got \{\}"):
        cell(0, scores={})
    with pytest.raises(ValueError, match=r"scores must be given for a complete cell and for no other, got \{'acc"):
        failed_cell(0, scores={"accuracy": 0.5})
    with pytest.raises(ValueError, match="failure must be given for a failed cell"):
        cell(0, state="failed")
    with pytest.raises(ValueError, match=r"got \(7,\) and \(6, 3\)"):
        cell(0, probabilities=np.zeros((6, 3), dtype=np.float32))


def test_optuna_keeps_its_study_in_the_same_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        study = ledger.optuna_study(optuna.samplers.RandomSampler(seed=0))
        assert study.study_name == "reviews"
        assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        asked = study.ask()
        rank = asked.suggest_categorical("rank", [1, 2])
        study.tell(asked, [0.8, 1000.0 * rank])
        ledger.add_trial(trial(asked.number, rank))
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        (kept,) = ledger.optuna_study().trials
        assert (kept.params, kept.values) == ({"rank": rank}, [0.8, 1000.0 * rank])
        assert len(ledger.trials()) == 1
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == verbosity


def test_the_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a b", "50%", "a?b=c#d", "{SCHEMA_VERSION}", "é"):
        with Ledger.open(tmp_path / name / "reviews", experiment(), ENVIRONMENT) as ledger:
            ledger.add_trial(trial(0))
        assert len(read_study(tmp_path / name / "reviews").trials) == 1


def test_the_search_may_grow_and_the_verdict_may_change_its_mind(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
    more = experiment(search={"trials": 99}, verdict={"margin": 0.02, "confidence": 0.9})
    with Ledger.open(folder, more, ENVIRONMENT) as ledger:
        assert ledger.trials() == [trial(0)]
        assert ledger.tables().experiment == more
    assert load_experiment(folder / "experiment.toml") == more


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
    holder = (
        "import sys\n"
        "from store_builders import ENVIRONMENT, experiment\n"
        "from lora_search.store.ledger import Ledger\n"
        "with Ledger.open(sys.argv[1], experiment(), ENVIRONMENT):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
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


def test_a_run_in_another_environment_is_remembered(folder: Path) -> None:
    newer = {**ENVIRONMENT, "torch": "2.14.0", "cores": np.int64(2), "path": Path("/x")}
    for environment in (ENVIRONMENT, ENVIRONMENT, newer, newer):
        with Ledger.open(folder, experiment(), environment):
            pass
    plain = {**ENVIRONMENT, "torch": "2.14.0", "cores": 2, "path": "/x"}
    assert json.loads((folder / "environment.json").read_text()) == {**ENVIRONMENT, "resumed_in": [plain]}
    assert read_study(folder).environment == {**ENVIRONMENT, "resumed_in": [plain]}


def test_the_verdict_is_json_that_any_program_reads(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        for number in range(2):
            ledger.add_trial(trial(number))
        ledger.write_verdict(
            verdict(sentence="Décidé.", margin=np.float64(0.01), corrected_score=float("nan"), warnings=("a", "b"))
        )
        assert ledger.tables().verdict() == verdict(
            sentence="Décidé.", margin=0.01, corrected_score=None, warnings=["a", "b"]
        )
    assert "NaN" not in (folder / "verdict.json").read_text()
