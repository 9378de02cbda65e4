"""Racing, finalists and the hold-out in a simulated study: what they leave in the tables, and when they look again."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
import simulated_study
from on_postgresql import in_its_folder
from simulated_study import FormulaEngine, Killed, die_at, simulated
from tiny_world import assert_same_study

from lora_search import open_study, run_study
from lora_search.spec.facts import HOLDOUT
from lora_search.statistics.baselines import head_alone
from lora_search.store.files import STUDY_FILE
from lora_search.study import prepare
from lora_search.study.progress import Silent
from lora_search.study.race import Loss, Racer

SPEC = {
    "cv": {"folds": 4},
    "data": {"holdout": 0.2},
    "search": {"trials": 12},
    "verdict": {"extra_repeats": 2, "margin": 0.15, "confidence": 0.8},
}

DECIDED = {**SPEC, "verdict": {"extra_repeats": 0, "margin": 0.9, "confidence": 0.6}}


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """``run(trials)``: the simulated study with this total."""
    prepared = prepare(world.experiment(**SPEC))

    def run_to(trials):
        experiment = world.experiment(**{**SPEC, "search": {"trials": trials}})
        with simulated(monkeypatch, replace(prepared, experiment=experiment)):
            return run_study(experiment, tmp_path, progress=False)

    return run_to


@pytest.fixture(scope="module")
def raced(world, tmp_path_factory):
    """For reading only."""
    experiment = world.experiment(**SPEC)
    with pytest.MonkeyPatch.context() as patch, simulated(patch, prepare(experiment)):
        return run_study(experiment, tmp_path_factory.mktemp("raced"), progress=False)


def test_stopped_trials_have_fewer_cells_and_say_why(raced):
    study = raced
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


def test_finalists_get_whole_repeats_and_only_as_many_as_allowed(raced):
    cells = raced.cells
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
    monkeypatch.setattr(simulated_study, "advantage", lambda cell: 0.06 if cell.key.trial in (3, 5) else 0.0)

    def run(name, before_write=None):
        with simulated(monkeypatch, prepared, before_write):
            return run_study(experiment, tmp_path / name, progress=False)

    monkeypatch.setattr(Racer, "look", lambda racer, repeat, fold: [])
    unraced = run("unraced")
    best = unraced.verdict()["best"]["trial"]
    monkeypatch.setattr(Racer, "look", lambda racer, repeat, fold: [Loss(best, "a mistake")] if fold == 1 else [])
    return run, unraced, best


@in_its_folder
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
            study = run("killed", die_at(23))
        except Killed:
            deaths += 1
        else:
            break
    assert deaths > 3
    assert_same_study(study.folder, undisturbed.folder)


# -- trainings after the trials that diverge ------------------------------------------------------------------------


def failing(monkeypatch, which):
    """Of the simulated trainings, those that ``which`` says of a cell fail as well."""
    plain = simulated_study.diverges
    monkeypatch.setattr(simulated_study, "diverges", lambda cell: plain(cell) or which(cell))


def test_a_finalist_whose_extra_repeat_diverges_is_not_recommended(world, tmp_path, monkeypatch):
    experiment = world.experiment(**{**SPEC, "verdict": {**SPEC["verdict"], "margin": 0.06}})
    prepared = prepare(experiment)

    def run(name, before_write=None):
        with simulated(monkeypatch, prepared, before_write):
            return run_study(experiment, tmp_path / name, progress=False)

    sound = run("sound")
    repeated = sound.cells.loc[sound.cells["repeat"] > 0, "trial"]
    finalist = sound.verdict()["recommended"]["trial"]
    assert finalist in set(repeated)
    failing(monkeypatch, lambda cell: cell.key.trial == finalist and cell.key.repeat > 0)
    study = run("diverged")
    row = study.trials.loc[study.trials["trial"] == finalist].iloc[0]
    assert (row["state"], row["failure"]) == ("failed", "the loss was nan at step 3 of 10")
    assert study.verdict()["recommended"]["trial"] != finalist
    assert finalist not in {comparison["trial"] for comparison in study.verdict()["comparisons"]}
    while True:
        try:
            killed = run("killed", die_at(41))
        except Killed:
            continue
        break
    assert_same_study(killed.folder, study.folder)


def test_a_refit_for_the_hold_out_that_diverges_is_told_and_not_tried_again(world, tmp_path, monkeypatch):
    experiment = world.experiment(**DECIDED)
    refits = []

    def is_refit(cell):
        if cell.key.fold == experiment.cv.folds:
            refits.append(cell.key.trial)
        return cell.key.fold == experiment.cv.folds

    failing(monkeypatch, is_refit)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=False)
        again = run_study(experiment, tmp_path, progress=False)
    recommended = study.verdict()["recommended"]["trial"]
    assert refits == [recommended]
    assert again.verdict() == study.verdict()
    assert study.verdict()["holdout_score"] is None
    said = (
        f"Trial {recommended} diverged when it was trained on all examples but the hold-out (the loss was nan at step 3"
    )
    assert any(warning.startswith(said) for warning in study.verdict()["warnings"])


def test_a_head_alone_that_diverges_is_told(world, tmp_path, monkeypatch):
    experiment = world.experiment(**SPEC)
    failing(monkeypatch, lambda cell: not cell.modules and cell.key.fold == 1)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=False)
    said = "Training the head alone diverged in 1 of 4 folds (the loss was nan at step 3"
    assert any(warning.startswith(said) for warning in study.verdict()["warnings"])
    assert [cell.failure is None for cell in head_alone(study)] == [True, False, True, True]


def test_a_refit_for_the_hold_out_that_teaches_nothing_is_begun_anew(world, tmp_path, monkeypatch):
    experiment = world.experiment(**DECIDED)
    folds, plain, attempts, notes = experiment.cv.folds, FormulaEngine.train, [], []

    def train(engine, cells, pack, listener=None):
        found = plain(engine, cells, pack, listener)
        for cell, trained in zip(cells, found, strict=True):
            if cell.key.fold >= folds:
                attempts.append(trained.result)
                trained.stalled = len(attempts) == 1
        return found

    class Noting(Silent):
        def note(self, sentence):
            notes.append(sentence)

    monkeypatch.setattr(FormulaEngine, "train", train)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=Noting())
    assert [result.key.fold for result in attempts] == [folds, folds + 1]
    assert HOLDOUT.of(study.facts).scores == attempts[1].scores
    assert sum("begun anew with other draws: a training of it on all" in note for note in notes) == 1


def test_an_undecided_study_keeps_its_hold_out(world, tmp_path, monkeypatch):
    undecided = {**SPEC, "verdict": {"extra_repeats": 0, "margin": 0.001, "confidence": 0.999}}
    experiment = world.experiment(**undecided)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=False)
    assert (study.verdict()["status"], study.verdict()["holdout_score"]) == ("undecided", None)
    assert HOLDOUT.of(study.facts) is None
    experiment = world.experiment(**DECIDED)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=False)
    assert study.verdict()["status"] == "decided"
    assert study.verdict()["holdout_score"] is not None
    assert HOLDOUT.of(study.facts).trial == study.verdict()["recommended"]["trial"]
