"""Interrupted or killed anywhere, and run again: the study that would have been."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pandas as pd
import pytest
import simulated_study
import torch
from simulated_study import Killed, die_at, simulated
from tiny_world import assert_same_study

from lora_search import open_study, run_study
from lora_search.study import Interrupted, prepare, runner
from lora_search.study import refit as refit_module
from lora_search.study.progress import Silent
from lora_search.tasks.text_classification import ClassObjective
from lora_search.training import Engine

RACED = {
    "cv": {"folds": 3},
    "search": {"trials": 9},
    "training": {"epochs": 1},
    "verdict": {"extra_repeats": 1, "margin": 0.1, "confidence": 0.8},
}
"""Two generations, with trials stopped early and extra repeats for finalists."""

SIMULATED = {
    "cv": {"folds": 3},
    "search": {"trials": 10},
    "verdict": {"extra_repeats": 2, "margin": 0.03, "confidence": 0.8},
}


PHASES = (
    {"ask", "suggest_categorical", "set_user_attr", "add_trial"},
    {"add_cell"},
    {"add_baseline"},
    {"tell", "set_trial_state"},
    {"write_verdict"},
)
"""Asking, training, telling and judging, by what each writes."""


class Signalling(Silent):
    """Sends this process a signal when the n-th event of a kind happens."""

    def __init__(self, kind, number, which=signal.SIGINT):
        self.kind, self.number, self.which = kind, number, which
        self.seen = 0

    def _count(self, kind):
        if kind == self.kind:
            if self.seen == self.number:
                os.kill(os.getpid(), self.which)
            self.seen += 1

    def pack(self, title, work):
        self._count("pack")

    def step(self, step):
        self._count("step")

    def trial(self, record, score):
        self._count("trial")


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return run_study(world.experiment(**RACED), tmp_path_factory.mktemp("undisturbed"), progress=False).folder


def test_the_study_that_is_interrupted_has_all_there_is(undisturbed):
    study = open_study(undisturbed)
    assert set(study.trials["state"]) == {"complete", "pruned"}
    assert set(study.cells["repeat"]) >= {0, 1}


def test_interrupted_before_every_pack(world, undisturbed, tmp_path):
    experiment = world.experiment(**RACED)
    interruptions = 0
    while True:
        try:
            study = run_study(experiment, tmp_path, progress=Signalling("pack", 1))
        except Interrupted:
            interruptions += 1
        else:
            break
    # after the last pack there are two baselines, which are trained at once each
    assert interruptions == open_study(undisturbed).cells["pack"].nunique() + 1
    assert_same_study(study.folder, undisturbed)


@pytest.mark.parametrize(
    ("kind", "number", "which"),
    [("step", 7, signal.SIGINT), ("trial", 3, signal.SIGTERM), ("step", 35, signal.SIGTERM)],
)
def test_interrupted_once(world, undisturbed, tmp_path, kind, number, which):
    experiment = world.experiment(**RACED)
    with pytest.raises(Interrupted) as interrupted:
        run_study(experiment, tmp_path, progress=Signalling(kind, number, which))
    assert interrupted.value.folder == tmp_path / "critics"
    recorded = open_study(tmp_path / "critics")
    assert len(pd.read_csv(tmp_path / "critics" / "cells.csv")) == len(recorded.cells)
    assert len(recorded.cells) < len(open_study(undisturbed).cells)
    study = run_study(experiment, tmp_path, progress=False)
    assert_same_study(study.folder, undisturbed)
    pd.testing.assert_frame_equal(
        study.cells.loc[study.cells["finished_at"].isin(recorded.cells["finished_at"])].reset_index(drop=True),
        recorded.cells,
    )


def test_killed_again_and_again(world, tmp_path, monkeypatch):
    """A run gets as far as thirteen writes before the next one is killed: in asking, training, telling and judging."""
    experiment = world.experiment(**SIMULATED)
    prepared = prepare(experiment)
    monkeypatch.setattr(simulated_study, "diverges", lambda cell: cell.key.trial == 4)
    writes = []
    with simulated(monkeypatch, prepared, writes.append):
        undisturbed = run_study(experiment, tmp_path / "undisturbed", progress=False)
    assert set(undisturbed.trials["state"]) == {"complete", "pruned", "failed"}
    assert set(undisturbed.cells["repeat"]) >= {0, 1}
    deaths = []
    while True:
        try:
            with simulated(monkeypatch, prepared, die_at(13)):
                study = run_study(experiment, tmp_path / "killed", progress=False)
        except Killed as killed:
            deaths.append(str(killed))
        else:
            break
    assert len(deaths) > len(writes) / 13 - 1
    for phase in PHASES:
        assert phase & set(deaths)
    assert_same_study(study.folder, undisturbed.folder)


# -- what was measured once ---------------------------------------------------------------------------------------


def settings_of(monkeypatch, module):
    """The settings of the engines a module makes from now on; a list that grows."""
    made = []

    def engine(base, data, training, settings):
        made.append(settings)
        return Engine(base, data, training, settings)

    monkeypatch.setattr(module, "Engine", engine)
    return made


def test_what_memory_was_found_to_allow_is_recorded_and_kept(world, tmp_path, monkeypatch):
    plain, failures = ClassObjective.losses, iter([True, True])

    def twice(*args, **kwargs):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args, **kwargs)

    monkeypatch.setattr(ClassObjective, "losses", twice)
    experiment = world.experiment(search={"trials": 1}, training={"epochs": 1})
    study = run_study(experiment, tmp_path, progress=False)
    assert study.facts["budgets"] == {"token_budget": 512, "checkpointing": True}
    resumed = settings_of(monkeypatch, runner)
    run_study(experiment, tmp_path, progress=False)
    assert [(it.token_budget, it.checkpointing) for it in resumed] == [(512, True)]
    made = settings_of(monkeypatch, refit_module)
    refit_module.refit(replace(study, facts={**study.facts, "lanes": 1}))
    refit_module.refit(replace(study, facts={**study.facts, "lanes": 2}))
    assert [(it.token_budget, it.checkpointing, it.lanes) for it in made] == [(512, True, 1), (512, True, 2)]
