"""Racing, finalists and the hold-out in a simulated study: what they leave in the tables, and when they look again."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from simulated_study import Killed, die_at, simulated
from tiny_world import assert_same_study

from lora_search import open_study, run_study
from lora_search.store.files import STUDY_FILE
from lora_search.study import prepare
from lora_search.study.race import Loss, Racer

SPEC = {
    "cv": {"folds": 4},
    "data": {"holdout": 0.2},
    "search": {"trials": 12},
    "verdict": {"extra_repeats": 2, "margin": 0.02, "confidence": 0.8},
}


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """``run(trials)``: the simulated study with this total."""
    prepared = prepare(world.experiment(**SPEC))

    def run_to(trials):
        experiment = world.experiment(**{**SPEC, "search": {"trials": trials}})
        with simulated(monkeypatch, replace(prepared, experiment=experiment)):
            return run_study(experiment, tmp_path, progress=False)

    return run_to


def test_stopped_trials_have_fewer_cells_and_say_why(run):
    study = run(12)
    planned = 4
    pruned = study.trials[study.trials["state"] == "pruned"]
    assert 0 < len(pruned) < 12
    assert (pruned["cells"] < planned).all()
    assert pruned["failure"].str.fullmatch(r"\d+\.\d% chance to change the verdict(: .+)?").all()
    complete = study.trials[study.trials["state"] == "complete"]
    assert (complete["cells"] >= planned).all()
    verdict = study.verdict()
    assert verdict["cells_skipped_by_racing"] == int((planned - pruned["cells"]).sum())
    assert verdict["recommended"]["trial"] in set(complete["trial"])
    assert verdict["holdout_score"] is not None


def test_finalists_get_whole_repeats_and_only_as_many_as_allowed(run):
    cells = run(12).cells
    extra = cells[cells["repeat"] > 0]
    assert set(extra["repeat"]) <= {1, 2}
    assert (extra.groupby(["trial", "repeat"])["fold"].nunique() == 4).all()


def test_trials_added_to_a_generation_are_raced_as_well(run):
    before = run(10)
    after = run(12)
    looks = {name.split(" trials")[0] for name in after.facts["racing"]["looks"]}
    assert looks == {"8", "10", "12"}
    states = dict(zip(after.trials["trial"], after.trials["state"], strict=True))
    assert [states[trial] for trial in before.trials["trial"]] == list(before.trials["state"])
    assert open_study(after.folder).experiment.search.trials == 12


READMITTING = {
    "cv": {"folds": 4},
    "search": {"trials": 6},
    "verdict": {"extra_repeats": 0, "margin": 0.01, "confidence": 0.6},
}


@pytest.fixture
def stops_the_best(world, tmp_path, monkeypatch):
    """``run(folder, before_write)``: a simulated study whose race stops the trial that would be recommended."""
    experiment = world.experiment(**READMITTING)
    prepared = prepare(experiment)

    def run(name, before_write=None):
        with simulated(monkeypatch, prepared, before_write):
            return run_study(experiment, tmp_path / name, progress=False)

    monkeypatch.setattr(Racer, "look", lambda racer, repeat, fold: [])
    unraced = run("unraced")
    best = unraced.verdict()["best"]["trial"]
    monkeypatch.setattr(Racer, "look", lambda racer, repeat, fold: [Loss(best, "a mistake")] if fold == 1 else [])
    return run, unraced, best


def test_a_stopped_trial_that_may_be_the_best_gets_the_cells_it_lacks(stops_the_best):
    run, unraced, best = stops_the_best
    study = run("raced")
    assert study.verdict()["recommended"] | {"seconds": 0} == unraced.verdict()["recommended"] | {"seconds": 0}
    assert set(study.trials["state"]) == {"complete"}
    assert study.verdict()["cells_skipped_by_racing"] == 0
    storage = f"sqlite:///{study.folder / STUDY_FILE}"
    kept = optuna.load_study(study_name="critics", storage=storage).trials[best]
    assert kept.state == optuna.trial.TrialState.PRUNED


def test_a_readmission_that_is_killed_goes_on(stops_the_best):
    run, _, _ = stops_the_best
    undisturbed = run("undisturbed")
    deaths = 0
    while True:
        try:
            study = run("killed", die_at(11))
        except Killed:
            deaths += 1
        else:
            break
    assert deaths > 5
    assert_same_study(study.folder, undisturbed.folder)
