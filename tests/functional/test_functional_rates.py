"""Studies in which every adapter is compared at a learning rate of its own: probes, rounds, and what they leave."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import simulated_study
from simulated_study import Killed, die_at, simulated
from tiny_world import assert_same_study

from lora_search import open_study, run_study
from lora_search.spec import ADAPTER_FIELDS
from lora_search.spec.facts import OUT_OF_CELLS, ROUND
from lora_search.statistics.by_adapter import ByAdapter, by_adapter
from lora_search.statistics.judging import judge
from lora_search.store.status import study_status
from lora_search.study import prepare

SPEC = {
    "cv": {"folds": 4},
    "search": {"rank": [1, 4], "trials": 18, "learning_rate": "auto", "alpha_over_rank": [2]},
    "verdict": {"extra_repeats": 1, "margin": 0.05, "confidence": 0.8},
}
"""Eight adapters, all of which are tried."""
BEST_RATE = 0.03


def badly_chosen(cell):
    """What a training loses at a learning rate away from the best, which falls with the rank."""
    best = math.log(BEST_RATE) - 0.4 * math.log(cell.adapter.rank)
    away = math.log(cell.nuisance.learning_rate) - best
    return -0.3 * (1 - math.exp(-((away / 1.3) ** 2)))


@contextmanager
def rates_matter():
    """The learning rate moves scores, and none is so large that a training diverges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_study, "FAILING_RATE", 5.0)
        patch.setattr(simulated_study, "advantage", badly_chosen)
        yield patch


def simulate(world, folder, before_write=None, **tables):
    experiment = world.experiment(**{**SPEC, **tables})
    with pytest.MonkeyPatch.context() as patch, simulated(patch, prepare(experiment), before_write):
        return run_study(experiment, folder, progress=False)


@pytest.fixture
def run(world, tmp_path):
    """``run(name, before_write, **tables)``: a simulated study in which the learning rate matters."""

    def run_to(name="rates", before_write=None, **tables):
        return simulate(world, tmp_path / name, before_write, **tables)

    with rates_matter():
        yield run_to


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    with rates_matter():
        return simulate(world, tmp_path_factory.mktemp("undisturbed"))


def test_every_adapter_is_judged_at_a_rate_near_its_best(undisturbed):
    study = undisturbed
    rows = by_adapter(study)
    assert isinstance(rows, ByAdapter)
    assert not rows.trials.duplicated(list(ADAPTER_FIELDS)).any()
    assert len(rows.trials) == 8, "a small space is tried whole"
    complete = rows.trials[rows.trials["state"] == "complete"]
    best = np.log(BEST_RATE) - 0.4 * np.log(complete["rank"])
    assert (np.abs(np.log(complete["learning_rate"]) - best) < 0.8).all()
    verdict = study.verdict()
    assert {comparison["trial"] for comparison in verdict["comparisons"]} == set(complete["trial"])
    assert verdict["cells_trained"] == (study.cells["state"] == "complete").sum()


def test_the_study_begins_with_a_few_adapters_at_several_rates_on_one_fold(undisturbed):
    study = undisturbed
    probes = study.trials[study.trials["trial"] < 9]
    assert (probes.groupby(["rank", "targets", "layers"])["learning_rate"].nunique() == 3).all()
    rates = np.log(probes["learning_rate"].to_numpy().reshape(3, 3))
    assert np.allclose(np.diff(rates, axis=1), 1.2)
    smallest = study.trials.loc[study.trials["adapter_parameters"].idxmin()]
    assert smallest["adapter_parameters"] in set(probes["adapter_parameters"])


def test_settings_that_are_not_chosen_are_closed_and_say_which_one_was(undisturbed):
    study = undisturbed
    assert set(study.trials["state"]) <= {"complete", "pruned", "failed"}
    complete = study.trials[study.trials["state"] == "complete"]
    assert not complete.duplicated(list(ADAPTER_FIELDS)).any()
    assert (complete["cells"] >= 4).all()
    whys = study.trials.loc[study.trials["state"] == "pruned", "failure"]
    assert whys.str.contains("chance to change the verdict|the same adapter at a learning rate of").all()


def test_a_rate_that_diverges_does_not_condemn_its_adapter(run, monkeypatch):
    monkeypatch.setattr(simulated_study, "FAILING_RATE", 0.05)
    study = run()
    failed = study.trials[study.trials["state"] == "failed"]
    assert len(failed)
    rows = by_adapter(study).trials
    assert "failed" not in set(rows["state"])
    best = rows.loc[rows["state"] == "complete", "score_mean"].max()
    assert study.verdict()["best"]["score_mean"] <= best


def test_adapters_left_at_a_bad_rate_are_told_where_the_trials_are_used_up(run, monkeypatch):
    """Rank 1 on all layers wants a rate of a fiftieth of the others', and there are trials for one rate of it."""

    def misfit(cell):
        best = math.log(BEST_RATE) - (4.0 if (cell.adapter.layers, cell.adapter.rank) == ("all", 1) else 0.0)
        return -0.3 * (1 - math.exp(-(((math.log(cell.nuisance.learning_rate) - best) / 0.8) ** 2)))

    monkeypatch.setattr(simulated_study, "advantage", misfit)
    study = run(search={**SPEC["search"], "trials": 12})
    (told,) = (words for words in study.verdict()["warnings"] if "search.trials" in words)
    rows = by_adapter(study)
    astray = [int(number) for number in told.split(" are ")[0].removeprefix("Trials ").split(", ")]
    for trial in astray:
        row = rows.adapter_of(trial)
        rate = np.log(study.trials.set_index("trial").loc[trial, "learning_rate"])
        assert rows.model.loss(row, rate) > study.experiment.verdict.margin


def test_adapters_left_at_a_bad_rate_are_told_of_the_range_that_has_no_better_one(run):
    """More trials would be at the same rates: it is the range that a study would have to change."""
    study = run(search={**SPEC["search"], "learning_rate": {"low": 0.007, "high": 0.008}})
    (told,) = (words for words in study.verdict()["warnings"] if "believed to cost" in words)
    assert "search.learning_rate, 0.007 to 0.008, leaves out" in told
    rows = by_adapter(study)
    numbers = told.split(" are ")[0].removeprefix("Trials ").split(", ")
    adapters = [rows.adapter_of(int(number)) for number in numbers]
    assert (rows.model.optimum(rows.model.features[adapters])[0] > math.log(0.008)).all()


def test_a_limit_of_cells_is_kept(run):
    study = run(search={**SPEC["search"], "cells": 30}, verdict={**SPEC["verdict"], "extra_repeats": 0})
    assert len(study.cells) <= 30
    assert study.verdict()["recommended"] is not None
    assert set(study.trials["state"]) <= {"complete", "pruned", "failed"}


def test_with_a_higher_limit_of_cells_goes_on_what_only_the_limit_stopped(run):
    """And nothing changes where the limit is the same."""
    tables = {"verdict": {**SPEC["verdict"], "extra_repeats": 0}}
    first = run(search={**SPEC["search"], "cells": 24}, **tables)
    short = first.trials[first.trials["failure"] == OUT_OF_CELLS]
    assert len(short), "the limit has stopped some"
    again = run(search={**SPEC["search"], "cells": 24}, **tables)
    assert again.trials.equals(first.trials)
    assert again.cells.equals(first.cells)
    more = run(search={**SPEC["search"], "cells": 60}, **tables)
    assert len(more.cells) > len(first.cells)
    gone_on = more.cells[more.cells["trial"].isin(short["trial"])].groupby("trial").size()
    assert (gone_on > short.set_index("trial")["cells"].reindex(gone_on.index)).any()
    assert (more.trials["state"] == "complete").sum() > (first.trials["state"] == "complete").sum()
    assert not (more.trials["state"] == "running").any()


@pytest.mark.parametrize("cells", [4, 12])
def test_a_tight_limit_of_cells_is_kept_too(run, cells):
    study = run(search={**SPEC["search"], "cells": cells}, verdict={**SPEC["verdict"], "extra_repeats": 0})
    assert len(study.cells) <= cells + SPEC["cv"]["folds"], "but for what the one lacks that is trained to the end"
    tried, searched = len(by_adapter(study).trials), study.experiment.search.combinations
    told = [words for words in study.verdict()["warnings"] if "never trained" in words]
    assert [words.split(" ")[0] for words in told] == ([str(searched - tried)] if tried < searched else [])


def test_of_a_large_space_as_many_are_tried_as_trials_were_asked_for_and_more_when_asked_again(run):
    large = {"learning_rate": {"low": 1e-3, "high": 1.0}, "rank": [1, 2, 4, 8, 16, 32]}
    before = run(search={**large, "trials": 12})
    study = run(search={**large, "trials": 20})
    assert (len(before.trials), len(study.trials)) == (12, 20)
    rows = by_adapter(study)
    assert 12 <= len(rows.trials) < 20
    guesses = study.trials[study.trials["origin"] == "guess"]
    assert set(guesses["targets"]) == {"query+value", "all-linear"}, "the habits are among them"
    assert study.trials["learning_rate"].between(1e-3, 1.0).all()
    merged = before.cells.merge(study.cells, on=["trial", "repeat", "fold", "score"])
    assert len(merged) == len(before.cells), "what was trained stays"


def test_killed_at_any_write_it_goes_on_as_if_nothing_had_happened(run, undisturbed):
    deaths = []
    while True:
        try:
            study = run("killed", die_at(31))
        except Killed as killed:
            deaths.append(str(killed))
        else:
            break
    assert {"ask", "suggest_categorical", "suggest_float", "add_trial", "add_cell", "tell"} & set(deaths)
    assert len(deaths) > 4
    assert_same_study(study.folder, undisturbed.folder)


def test_few_trials_are_not_spent_on_probes(run):
    study = run(search={**SPEC["search"], "trials": 4})
    assert len(study.trials) == 4
    assert not study.trials.duplicated(list(ADAPTER_FIELDS)).any()


def test_tables_by_adapter_have_the_predictions_of_the_cells_they_chose(undisturbed):
    study = undisturbed
    rows = by_adapter(study)
    predictions = rows.predictions()
    assert set(predictions["trial"]) == set(rows.cells["trial"])
    counts = predictions.groupby("trial").size()
    complete = rows.trials.loc[rows.trials["state"] == "complete", "trial"]
    assert (counts[complete] >= 60).all()
    assert by_adapter(rows) is rows
    assert judge(rows).comparisons == judge(study).comparisons


def test_a_real_study_finds_rates(world, tmp_path, lora_search, plain_reports):
    spec = world.file(
        tmp_path,
        search={"rank": [1, 4], "targets": "all-linear", "trials": 8, "learning_rate": "auto"},
        training={"epochs": 1},
    )
    answer = lora_search("run", spec)
    assert answer.code == 0
    study = open_study(tmp_path / "results" / "critics")
    assert len(study.trials) <= 8
    assert study.trials["learning_rate"].nunique() > 2
    assert ROUND.of(study.facts)["number"] > 0
    verdict = json.loads((study.folder / "verdict.json").read_text())
    assert verdict["recommended"]["learning_rate"] > 0
    assert lora_search("report", study.folder).code == 0


def test_cells_that_doctor_had_to_forget_are_trained_again(run, undisturbed, tmp_path, lora_search):
    shutil.copytree(undisturbed.folder, tmp_path / "damaged" / undisturbed.folder.name)
    study = open_study(tmp_path / "damaged" / undisturbed.folder.name)
    for trial in (0, int(study.verdict()["recommended"]["trial"])):
        (study.folder / "predictions" / f"trial-{trial:04}-repeat-0-fold-0.npz").write_bytes(b"no more")
    assert lora_search("doctor", study.folder).code == 0
    mended = run("damaged")
    assert not (mended.trials["state"] == "running").any()
    same = mended.cells.merge(undisturbed.cells, on=["trial", "repeat", "fold", "score"])
    assert len(same) == len(undisturbed.cells)
    assert mended.verdict()["recommended"]["trial"] == undisturbed.verdict()["recommended"]["trial"]


def test_a_study_that_compares_all_it_can_in_fewer_trials_than_it_may_make_is_at_its_end(run):
    study = run(search={**SPEC["search"], "trials": 40}, verdict={**SPEC["verdict"], "extra_repeats": 0})
    status = study_status(study)
    assert len(study.trials) < 40
    assert (status.trials_wanted, status.cells_wanted) == (len(study.trials), len(study.cells))
