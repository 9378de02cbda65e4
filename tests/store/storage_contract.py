"""What every place for a study must do, as one suite; see ``test_store_storages``.

A class of the contract has the fixture ``begin``, which opens the study of ``folder`` for a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from store_builders import ENVIRONMENT, cell, experiment, failed_cell, trial, verdict

from lora_search.errors import StudyError, StudyInUseError
from lora_search.spec import load_experiment
from lora_search.spec.facts import HOLDOUT, PRECISION, HoldoutScore
from lora_search.store.ledger import Ledger
from lora_search.store.reader import list_studies, read_study
from lora_search.store.reading import read_from
from lora_search.store.records import BaselineKey, BaselineResult, CellKey
from lora_search.store.storages import storage_of

Begin = Callable[..., Ledger]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for_nobody(folder: Path, study: str) -> None:
    """Until nobody has a study: a server notices at once that a connection has ended, which is not in no time."""
    until = time.monotonic() + 30
    while storage_of(folder, study).holder() is not None:
        assert time.monotonic() < until
        time.sleep(0.02)


class StorageContract:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "results" / "reviews"

    def test_what_is_recorded_is_there_in_the_next_run(self, begin: Begin) -> None:
        records = [trial(0, origin="guess"), trial(1, rank=2, state="failed", failure="out of memory")]
        with begin() as ledger:
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
        with begin() as ledger:
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

    def test_numpy_numbers_are_kept_as_numbers(self, begin: Begin) -> None:
        key = CellKey(*(np.int64(number) for number in (0, 1, 2)))
        with begin() as ledger:
            ledger.add_trial(trial(0, adapter_parameters=np.int64(123)))
            ledger.add_cell(cell(0, key=key, steps=np.int64(5), seconds=np.float32(0.5), pack=np.int32(3)))
            assert ledger.next_pack() == 4
            tables = ledger.tables()
        assert tables.cells[["repeat", "fold", "steps", "seconds"]].to_numpy().tolist() == [[1, 2, 5, 0.5]]
        assert tables.trials["adapter_parameters"].tolist() == [123]

    def test_a_record_is_made_once_and_of_what_exists(self, begin: Begin, folder: Path) -> None:
        with begin() as ledger:
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

    def test_optuna_keeps_its_study_in_the_same_place(self, begin: Begin, capfd: pytest.CaptureFixture[str]) -> None:
        verbosity = optuna.logging.get_verbosity()
        with begin() as ledger:
            study = ledger.optuna_study(optuna.samplers.RandomSampler(seed=0))
            assert study.study_name == "reviews"
            assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
            asked = study.ask()
            rank = asked.suggest_categorical("rank", [1, 2])
            study.tell(asked, [0.8, 1000.0 * rank])
            ledger.add_trial(trial(asked.number, rank))
        with begin() as ledger:
            (kept,) = ledger.optuna_study().trials
            assert (kept.params, kept.values) == ({"rank": rank}, [0.8, 1000.0 * rank])
            assert len(ledger.trials()) == 1
        assert capfd.readouterr().err == ""
        assert optuna.logging.get_verbosity() == verbosity

    def test_the_search_may_grow_and_the_verdict_may_change_its_mind(self, begin: Begin, folder: Path) -> None:
        with begin() as ledger:
            ledger.add_trial(trial(0))
        more = experiment(search={"trials": 99}, verdict={"margin": 0.02, "confidence": 0.9})
        with begin(more) as ledger:
            assert ledger.trials() == [trial(0)]
            assert ledger.tables().experiment == more
        assert load_experiment(folder / "experiment.toml") == more

    def test_the_verdict_is_json_that_any_program_reads(self, begin: Begin, folder: Path) -> None:
        with begin() as ledger:
            for number in range(2):
                ledger.add_trial(trial(number))
            ledger.write_verdict(
                verdict(sentence="Décidé.", margin=np.float64(0.01), corrected_score=float("nan"), warnings=("a", "b"))
            )
            assert ledger.tables().verdict() == verdict(
                sentence="Décidé.", margin=0.01, corrected_score=None, warnings=["a", "b"]
            )
        assert "NaN" not in (folder / "verdict.json").read_text()

    def test_what_was_predicted_is_read_back(self, begin: Begin, folder: Path) -> None:
        trained = BaselineResult(BaselineKey("head", 0.1, 0, 1), cell(0, 0, 1), 770, 4096)
        majority = BaselineResult(BaselineKey("majority", None, 0, 0), cell(0), 0, None)
        with begin() as ledger:
            ledger.add_trial(trial(0))
            for result in (cell(0, 0, 1), cell(0), failed_cell(0, 1, 0)):
                ledger.add_cell(result)
            for baseline in (trained, majority):
                ledger.add_baseline(baseline)
            with pytest.raises(ValueError, match="training must be new, got majority, repeat 0, fold 0"):
                ledger.add_baseline(majority)
            for _ in range(2):
                ledger.write_examples(np.arange(30) % 3, np.arange(30) // 2, np.arange(60).reshape(30, 2))
            assert ledger.baseline_keys() == {trained.key, majority.key}
        tables = read_study(folder)
        predicted = tables.predictions()
        assert predicted[["trial", "repeat", "fold"]].drop_duplicates().to_numpy().tolist() == [[0, 0, 0], [0, 0, 1]]
        for fold in range(2):
            rows = predicted[predicted["fold"] == fold]
            assert rows["example"].tolist() == cell(0, 0, fold).examples.tolist()
            np.testing.assert_array_equal(rows[["p0", "p1", "p2"]], cell(0, 0, fold).probabilities)
        assert tables.baseline_predictions()["baseline"].unique().tolist() == ["head", "majority"]
        assert tables.baselines["step_bytes"].fillna(-1).tolist() == [4096, -1]
        assert tables.examples().iloc[5].tolist() == [2, 2, 10, 11]
        assert list_studies(folder.parent) == [folder]

    def test_a_run_in_another_environment_is_remembered(self, begin: Begin, folder: Path) -> None:
        newer = {**ENVIRONMENT, "torch": "2.14.0", "cores": np.int64(2), "path": Path("/x")}
        for environment in (ENVIRONMENT, newer, newer):
            with begin(environment=environment):
                pass
        plain = {**ENVIRONMENT, "torch": "2.14.0", "cores": 2, "path": "/x"}
        assert read_study(folder).environment == {**ENVIRONMENT, "resumed_in": [plain]}

    def test_another_experiment_and_another_run_are_refused(self, begin: Begin, folder: Path) -> None:
        with begin() as ledger:
            ledger.add_trial(trial(0))
            with pytest.raises(StudyInUseError, match=f"^{folder}: another run is writing to "):
                begin()
            ledger.add_trial(trial(1))
        with pytest.raises(StudyError) as caught:
            begin(experiment(seed=1))
        assert caught.value.mistakes == (
            f"{folder}: seed: the study has 0, the experiment says 1",
            f"{folder}: is another experiment's study; give this one another name",
        )
        with begin() as ledger:
            assert len(ledger.trials()) == 2
            ledger.close()
            ledger.close()

    def test_who_writes_to_it_is_told(self, begin: Begin, folder: Path) -> None:
        with begin() as ledger:
            holder = storage_of(folder, ledger.experiment.name).holder()
            assert holder is not None
            assert holder.startswith(f"process {os.getpid()} on ")
        wait_for_nobody(folder, ledger.experiment.name)

    def test_what_is_read_together_is_of_one_moment(self, begin: Begin, folder: Path) -> None:
        count = "select count(*) from lora_trials"
        with begin() as ledger:
            ledger.add_trial(trial(0))

            def work(connection):
                before = connection.execute(count).fetchone()
                ledger.add_trial(trial(1))
                return before, connection.execute(count).fetchone()

            assert read_from(folder, work) == ((1,), (1,))
            assert len(ledger.trials()) == 2
