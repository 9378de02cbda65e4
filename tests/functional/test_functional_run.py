"""A study from the first command to the verdict: what is written, what is said, how far it goes."""

from __future__ import annotations

import json
import re
import tomllib

import pandas as pd
from on_postgresql import in_its_folder
from tiny_world import assert_same_study

from lora_search import open_study, run_study
from lora_search.store.reader import read_predictions


@in_its_folder
def test_a_study_leaves_every_file_of_the_contract(world, tmp_path, lora_search):
    answer = lora_search("run", world.file(tmp_path), "--results", "studies")
    assert answer.code == 0
    folder = tmp_path / "studies" / "critics"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names >= {
        "experiment.toml",
        "environment.json",
        "study.db",
        "trials.csv",
        "cells.csv",
        "verdict.json",
        "predictions",
    }
    experiment = tomllib.loads((folder / "experiment.toml").read_text())
    assert experiment["search"]["alpha_over_rank"] == [1.0, 2.0], "defaults are filled in"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["versions"]["torch"]
    assert environment["hardware"]["cores"] >= 1
    assert len({environment["data"]["folds"][f"repeat 0 fold {fold}"] for fold in (0, 1)}) == 2
    trials, cells = pd.read_csv(folder / "trials.csv"), pd.read_csv(folder / "cells.csv")
    assert list(trials["state"]) == ["complete"] * 4
    assert list(zip(cells["trial"], cells["fold"], strict=True)) == [(t, f) for t in range(4) for f in range(2)]
    assert (cells.groupby("trial")["score"].mean().to_numpy() == trials["score_mean"].to_numpy()).all()
    predictions = read_predictions(folder)
    assert len(predictions) == 4 * 60
    assert set(predictions.groupby("trial")["example"].nunique()) == {60}, "each example is predicted once per trial"
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["sentence"] in answer.out
    assert verdict["best"]["score_mean"] == trials["score_mean"].max()
    assert verdict["cells_trained"] == 8


def test_the_same_twice(world, finished, tmp_path):
    assert_same_study(run_study(world.experiment(), tmp_path, progress=False).folder, finished)


def test_another_seed_is_another_study(world, finished, tmp_path):
    other = run_study(world.experiment(seed=1), tmp_path, progress=False)
    assert list(other.cells["score"]) != list(open_study(finished).cells["score"])


def test_what_people_would_guess_comes_first(finished):
    trials = open_study(finished).trials
    assert list(trials["origin"]) == ["guess", "guess", "sampler", "sampler"]
    # rank 8 and alpha 16, as near as a space of ranks 1, 2 and 4 has it
    first = trials.iloc[0]
    assert (first["rank"], first["alpha"], first["targets"], first["layers"]) == (4, 8.0, "query+value", "all")
    assert set(trials["learning_rate"]) == {0.02}


def test_guesses_take_the_most_layers_there_are(world, tmp_path):
    experiment = world.experiment(search={"layers": ["top-1", "1,2"], "trials": 2})
    trials = run_study(experiment, tmp_path, progress=False).trials
    assert list(trials["origin"]) == ["guess", "guess"]
    assert list(trials["layers"]) == ["1,2", "1,2"]


def test_trials_is_a_total(world, tmp_path, lora_search):
    spec = world.file(tmp_path, search={"trials": 2})
    assert lora_search("run", spec).code == 0
    first = open_study(tmp_path / "results" / "critics")
    assert len(first.trials) == 2

    again = lora_search("run", spec, "--trials", 3)
    assert again.code == 0
    raised = open_study(tmp_path / "results" / "critics")
    assert list(raised.trials["trial"]) == [0, 1, 2]
    assert raised.experiment.search.trials == 3
    pd.testing.assert_frame_equal(raised.cells[raised.cells["trial"] < 2], first.cells)

    lowered = lora_search("run", spec, "--trials", 1)
    assert lowered.code == 0
    assert lowered.err.splitlines()[0] == "critics: every trial is finished"
    pd.testing.assert_frame_equal(open_study(tmp_path / "results" / "critics").cells, raised.cells)


def test_a_finite_space_ends_at_its_size_without_repeats(world, tmp_path):
    small = {"rank": [1, 4], "alpha_over_rank": 2, "layers": "top-1", "learning_rate": 0.02, "trials": 50}
    study = run_study(world.experiment(search=small), tmp_path, progress=False)
    assert set(zip(study.trials["rank"], study.trials["targets"], strict=True)) == {
        (rank, targets) for rank in (1, 4) for targets in ("query+value", "all-linear")
    }
    assert len(study.trials) == 4
    assert set(study.trials["learning_rate"]) == {0.02}


def test_a_diverging_trial_fails_and_the_study_goes_on(world, tmp_path, lora_search):
    ratios = [1.0, 1e12]
    answer = lora_search("run", world.file(tmp_path, search={"alpha_over_rank": ratios, "trials": 5}))
    assert answer.code == 0
    study = open_study(tmp_path / "results" / "critics")
    failed = study.trials[study.trials["state"] == "failed"]
    assert 0 < len(failed) < 5
    ended = study.cells[study.cells["state"] == "failed"]
    assert set(ended["trial"]) == set(failed["trial"])
    assert ended["score"].isna().all()
    for row in failed.itertuples():
        assert re.fullmatch(r"the loss was (nan|inf) at step \d+ of 12", row.failure)
        assert f"trial {row.trial} of 5: failed: {row.failure}" in answer.err
    assert set(study.trials["state"]) == {"complete", "failed"}
    assert study.verdict()["recommended"]["trial"] not in set(failed["trial"])

    again = lora_search("run", "critics.toml")
    assert again.code == 0
    assert "every trial is finished" in again.err
    pd.testing.assert_frame_equal(open_study(study.folder).cells, study.cells)


def test_when_every_trial_fails_there_is_no_recommendation(world, tmp_path, lora_search):
    rates = 1e30
    answer = lora_search("run", world.file(tmp_path, search={"learning_rate": rates, "trials": 3}))
    assert answer.code == 0
    study = open_study(tmp_path / "results" / "critics")
    assert list(study.trials["state"]) == ["failed"] * 3
    verdict = study.verdict()
    assert (verdict["status"], verdict["recommended"], verdict["best"]) == ("no-trials", None, None)
    assert answer.out.startswith(verdict["sentence"])
    assert json.loads(lora_search("status", study.folder, "--json").out)["trials"] == {"failed": 3}
    assert lora_search("report", study.folder).code == 0
    assert lora_search("export", study.folder, "adapter").code == 2
    assert not (tmp_path / "adapter").exists()


def test_one_line_per_event_where_there_is_no_terminal(world, tmp_path, lora_search):
    answer = lora_search("run", world.file(tmp_path, search={"trials": 2}))
    lines = answer.err.splitlines()
    assert lines[:2] == ["critics: 2 trials, 4 trainings to go", "60 examples of 2 labels: fresh (30), rotten (30)."]
    assert lines[2] == "training trials 0, 1 / fold 1, 2"
    assert [line.partition(":")[0] for line in lines[-4:-2]] == ["trial 0 of 2", "trial 1 of 2"]
    assert lines[-2].startswith("training the share of each label, to compare with")
    assert lines[-1].startswith("training the head alone, to compare with")
    assert "\x1b" not in answer.err
    assert "\r" not in answer.err
    assert "recommended" in answer.out


def test_quiet_prints_the_verdict_only(world, tmp_path, lora_search):
    spec = world.file(tmp_path, search={"trials": 1})
    answer = lora_search("run", spec, "--quiet")
    assert answer.err == ""
    assert answer.out == lora_search("verdict", "results/critics").out
