"""A run killed again and again, and looked at all the while: the short form of ``experiments/audits/kills.py``."""

from __future__ import annotations

import os
import random
import time

import pytest
import torch
from experiment_scripts import audit_module
from forking import clean_context
from on_postgresql import in_its_folder
from tiny_world import assert_same_study

from lora_search import run_study
from lora_search.errors import StudyError
from lora_search.plots.facts import verdict_of
from lora_search.reporting.page import render_report
from lora_search.statistics.judging import judge
from lora_search.store.reader import read_study
from lora_search.store.status import study_status
from lora_search.study.refit import chosen_trial

KILLS = 3
SPEC = {
    "cv": {"folds": 3},
    "data": {"holdout": 0.2},
    "search": {"trials": 5, "learning_rate": {"low": 5e-3, "high": 5e3}},
    "training": {"epochs": 1},
    "verdict": {"extra_repeats": 1, "margin": 0.1, "confidence": 0.8},
}


@pytest.fixture(scope="module")
def audit():
    return audit_module("kills")


def run_alone(experiment, results, begun):
    """What a process of its own does: a run, in a process group of its own and in two lanes."""
    os.setsid()
    begun.set()
    torch.set_num_threads(2)
    run_study(experiment, results, progress=False)
    os._exit(0)


def read_on(folder, pipe):
    """What another process does: read a study over and over, as status, verdict, report and export do, until
    told to stop; then say how often, and what went wrong.
    """
    reads, errors = 0, []
    while not pipe.poll(0.4):
        if (folder / "study.db").exists():
            try:
                read(folder, draws=reads % 10 == 9)
            except Exception as error:
                if "before there is a recommendation" not in str(error):
                    errors.append(repr(error))
            reads += 1
    pipe.send((reads, errors))
    os._exit(0)


def read(folder, *, draws):
    tables = read_study(folder)
    study_status(tables).lines()
    judge(tables)
    if draws and len(tables.trials):
        render_report(tables, verdict_of(tables))
    chosen_trial(tables)


def test_killed_at_random_moments_with_readers_beside_it(world, tmp_path, audit):
    experiment, clean = world.experiment(**SPEC), clean_context()

    def start(results):
        begun = clean.Event()
        process = clean.Process(target=run_alone, args=(experiment, results, begun))
        process.start()
        assert begun.wait(120)
        return process

    undisturbed = start(tmp_path / "undisturbed")
    begun = time.monotonic()
    undisturbed.join()
    seconds = time.monotonic() - begun
    draw = random.Random(0)
    moments = [draw.uniform(0.0, 2.0 * seconds / KILLS) for _ in range(KILLS)]
    folder = tmp_path / "killed" / "critics"
    ours, theirs = clean.Pipe()
    reader = clean.Process(target=read_on, args=(folder, theirs))
    reader.start()
    with audit.Onlooker(folder, [audit.foreign_look(folder / "study.db")], 0.2) as other:
        kills = audit.kill_again_and_again(lambda: start(tmp_path / "killed"), lambda run: True, folder, moments)
        before = audit.recorded(folder)
        last = start(tmp_path / "killed")
        last.join()
    ours.send("stop")
    reads, errors = ours.recv()
    reader.join()
    assert last.exitcode == 0
    assert (other.errors, errors) == ([], [])
    assert other.seen
    assert reads
    assert [row["changed"] for row in kills] == [[]] * len(kills)
    assert audit.changed(before, audit.recorded(folder)) == []
    assert_same_study(folder, tmp_path / "undisturbed" / "critics")
    assert audit.differences(folder, tmp_path / "undisturbed" / "critics") == []


@in_its_folder
def test_the_audit_tells_what_is_lost_and_what_is_different(audit, finished, tmp_path):
    cells = audit.recorded(finished)
    first, second, *_ = cells
    assert audit.changed(cells, {**cells, first: "later"} | {(99, 0, 0): "new"}) == [f"{first}: trained twice"]
    assert audit.changed(cells, {key: when for key, when in cells.items() if key != second}) == [f"{second}: lost"]
    assert audit.differences(finished, finished) == []
    with pytest.raises(StudyError):
        audit.differences(finished, tmp_path)
