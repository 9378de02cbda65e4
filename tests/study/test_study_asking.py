"""What the sampler learns from trials that were stopped: all they showed, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from lora_search.spec import Experiment
from lora_search.spec.experiment import SearchSpec
from lora_search.store.reader import StudyTables
from lora_search.study.asking import believed_values, note_score
from lora_search.study.space import as_believed, sampler_for, suggest_adapter

SEARCH = SearchSpec.model_validate({"learning_rate": {"low": 1e-4, "high": 1e-1}})
FOLDS, TRIALS, LUCKY = 5, 16, 3
EASY = np.array([0.02, -0.01, 0.0, -0.01, 0.0])


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def tables(stopped):
    """Sixteen trials of scores from 0.78 to 0.80 on five folds with much noise, the first an easy one.

    Args:
        stopped: trials that had only the first fold, and their score there.
    """
    rng = np.random.default_rng(5)
    cells = []
    for trial, level in enumerate(rng.permutation(np.linspace(0.78, 0.80, TRIALS))):
        scores = level + EASY + 0.015 * rng.standard_normal(FOLDS)
        shown = [stopped[trial]] if trial in stopped else scores
        cells += [(trial, 0, fold, "complete", score) for fold, score in enumerate(shown)]
    frame = pd.DataFrame(
        {
            "trial": range(TRIALS),
            "state": ["pruned" if trial in stopped else "complete" for trial in range(TRIALS)],
            "adapter_parameters": [1000 * (TRIALS - trial) for trial in range(TRIALS)],
            "scaling": "lora",
            "use_dora": False,
            "bias": "none",
            "rank_pattern": "uniform",
            "learning_rate": 1e-3,
        }
        | {name: [point(trial)[name] for trial in range(TRIALS)] for name in ("rank", "targets", "layers")}
        | {"alpha": [point(trial)["alpha_over_rank"] * point(trial)["rank"] for trial in range(TRIALS)]}
    )
    experiment = Experiment.model_validate(
        {
            "name": "asked",
            "model": {"base": "bert"},
            "data": {"train": "rows.csv"},
            "verdict": {"metric": "accuracy", "margin": 0.01},
        }
    )
    columns = ["trial", "repeat", "fold", "state", "accuracy"]
    return StudyTables(Path(), experiment, {}, frame, pd.DataFrame(cells, columns=columns), {})


def point(number):
    """Another adapter for every number."""
    rank, layers = divmod(number, len(SEARCH.layers) * len(SEARCH.targets))
    layers, targets = divmod(layers, len(SEARCH.targets))
    return {
        "rank": SEARCH.rank[rank % len(SEARCH.rank)],
        "alpha_over_rank": SEARCH.alpha_over_rank[rank // len(SEARCH.rank)],
        "targets": SEARCH.targets[targets],
        "layers": SEARCH.layers[layers],
    }


def mean_scores(recorded):
    return recorded.cells.groupby("trial")["accuracy"].mean()


def asked_and_told(recorded):
    """An Optuna study in which these trials were asked for and told as a run tells them."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    scores = mean_scores(recorded)
    for number, state in zip(recorded.trials["trial"], recorded.trials["state"], strict=True):
        study.sampler = sampler_for(SEARCH, 0, number, {}, point(number))
        suggest_adapter(study.ask(), SEARCH)
        if state == "pruned":
            note_score(study, number, float(scores[number]), 1)
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, [float(scores[number]), 1000.0 * (TRIALS - number)])
    return study


def next_asked(recorded, believed, count=4):
    """What each of several seeds asks for next."""
    found = []
    for seed in range(count):
        study = asked_and_told(recorded)
        study.sampler = sampler_for(SEARCH, seed, TRIALS, believed)
        found.append(suggest_adapter(study.ask(), SEARCH))
    return found


def test_one_lucky_fold_is_the_best_score_and_not_believed_to_be():
    """Three points above the mean of all: two for the easy fold, which all had, and one that is noise."""
    recorded = tables({LUCKY: 0.83})
    assert mean_scores(recorded).idxmax() == LUCKY
    believed = believed_values(recorded)
    assert set(believed) == set(range(TRIALS))
    assert max(believed, key=lambda trial: believed[trial][0]) != LUCKY
    study = asked_and_told(recorded)
    at_face_value = {**believed, LUCKY: (0.83, believed[LUCKY][1])}
    assert LUCKY in {trial.number for trial in as_believed(study, at_face_value).best_trials}
    assert LUCKY not in {trial.number for trial in as_believed(study, believed).best_trials}


def test_a_small_trial_that_was_good_until_it_was_stopped_is_one_to_learn_from():
    small = TRIALS - 1
    recorded = tables({small: 0.80})
    copy = as_believed(asked_and_told(recorded), believed_values(recorded))
    assert {trial.state for trial in copy.trials} == {TrialState.COMPLETE}
    assert small in {trial.number for trial in copy.best_trials}


def test_stopped_trials_move_what_is_asked_next():
    recorded = tables(dict.fromkeys(range(TRIALS - 4, TRIALS), 0.80))
    believed = believed_values(recorded)
    complete = {trial: values for trial, values in believed.items() if trial < TRIALS - 4}
    assert next_asked(recorded, believed) == next_asked(recorded, believed)
    assert next_asked(recorded, believed) != next_asked(recorded, complete)


def test_the_recorded_study_keeps_its_pruned_trials_and_their_means():
    recorded = tables({LUCKY: 0.83})
    study = asked_and_told(recorded)
    before = study.get_trials()
    study.sampler = sampler_for(SEARCH, 0, TRIALS, believed_values(recorded))
    suggest_adapter(study.ask(), SEARCH)
    assert study.get_trials()[:TRIALS] == before
    stopped = study.trials[LUCKY]
    assert (stopped.state, stopped.values, stopped.user_attrs) == (
        TrialState.PRUNED,
        None,
        {"score_mean": 0.83, "cells": 1},
    )
    assert LUCKY not in {trial.number for trial in study.best_trials}


def test_a_trial_that_is_told_already_is_left_as_it_is():
    study = asked_and_told(tables({LUCKY: 0.83}))
    note_score(study, LUCKY, 0.5, 3)
    assert study.trials[LUCKY].user_attrs == {"score_mean": 0.83, "cells": 1}


def test_without_a_cell_there_is_nothing_to_believe():
    recorded = tables({})
    empty = StudyTables(Path(), recorded.experiment, {}, recorded.trials, recorded.cells.iloc[:0], {})
    assert believed_values(empty) == {}


def test_an_adapter_that_is_there_is_not_asked_again():
    search = SearchSpec.model_validate({"rank": [1, 2, 4], "alpha_over_rank": 1, "targets": "mlp", "layers": "all"})
    study = optuna.create_study(directions=["maximize", "minimize"])
    ranks = []
    for number in range(3):
        study.sampler = sampler_for(search, 0, number, {})
        ranks.append(suggest_adapter(study.ask(), search).rank)
    assert sorted(ranks) == [1, 2, 4]


def test_a_setting_that_does_not_stand_for_its_adapter_teaches_nothing():
    study = asked_and_told(tables({}))
    copy = as_believed(study, {0: (0.8, 1000.0)})
    assert [trial.state for trial in copy.trials[:2]] == [TrialState.COMPLETE, TrialState.FAIL]
