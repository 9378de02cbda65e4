"""What the page of a study draws, and how it is put together."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated_studies import by_error, every_state_rows, sampled_rows, study, trial_row, verdict_for

from lora_search.plots.web import inline_json, judged_view, page_script, page_style, study_payload
from lora_search.plots.web.payload import csv_lines
from lora_search.plots.web.render import run_command
from lora_search.spec import facts
from lora_search.store.spreadsheets import csv_text


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"), every_state_rows(), pack=4)


@pytest.fixture(scope="module")
def verdict(tables):
    return verdict_for(tables.trials, tables.cells)


@pytest.fixture(scope="module")
def payload(tables, verdict):
    return json.loads(json.dumps(study_payload(tables, judged_view(tables, verdict)), allow_nan=False))


def test_scores_are_by_trial_and_fold(tables, payload):
    assert payload["columns"] == [[0, fold] for fold in range(5)]
    for row, (_, trial) in zip(payload["scores"], tables.trials.iterrows(), strict=True):
        mine = tables.cells[tables.cells["trial"] == trial["trial"]].set_index("fold")["score"]
        assert row == [pytest.approx(mine[fold], rel=1e-8) if fold in mine.index else None for fold in range(5)]


@pytest.mark.parametrize("scale", [1e7, 1e-7])
def test_scores_in_the_unit_of_the_label_keep_their_figures(tables, scale):
    errors = by_error(tables, "rmse", scale, scale / 100, "regression")
    judged = judged_view(errors, verdict_for(errors.trials, errors.cells, margin=scale / 100, metric="rmse"))
    best = judged["best"]
    assert judged["score"][best] == pytest.approx(-errors.trials["score_mean"][best], rel=1e-8)
    mine = errors.cells.loc[errors.cells["trial"] == best, "score"]
    assert study_payload(errors, judged)["scores"][best] == pytest.approx(-mine, rel=1e-8)


def test_trials_of_one_adapter_share_its_number(tmp_path):
    rows = sampled_rows(3)
    rows += [dict(rows[1], trial=3, learning_rate=9e-4), dict(rows[1], trial=4, alpha=3.0)]
    tables = study(tmp_path, rows)
    found = study_payload(tables, judged_view(tables, verdict_for(tables.trials, tables.cells)))
    assert found["trials"]["adapter"] == [0, 1, 2, 1, 3]


def test_packs_lie_one_after_the_other_on_the_clock(payload):
    packs = payload["packs"]
    assert sum(len(pack["cells"]) for pack in packs) == sum(payload["trials"]["cells"])
    assert packs[0]["start"] == 0.0
    assert all(pack["start"] <= pack["end"] for pack in packs)
    assert all(one["end"] <= other["start"] for one, other in pairwise(packs))


def test_the_view_of_a_judgement_is_the_verdict_s(tables, verdict, payload):
    judged = payload["judged"]
    compared = {item["trial"]: item for item in verdict["comparisons"]}
    best_score = judged["score"][judged["best"]]
    for at, trial in enumerate(payload["trials"]["trial"]):
        item = compared.get(trial)
        assert judged["status"][at] == (item and item["status"])
        if item is not None and trial != judged["best"]:
            assert judged["difference"][at] == pytest.approx(-item["difference"], abs=1e-5)
            assert judged["low"][at] == pytest.approx(best_score - item["interval"][1], abs=1e-5)
    assert any(name.startswith("best") for name in judged["roles"][str(judged["best"])])
    assert verdict["sentence"].split()[0] in judged["html"]["verdict"]


def test_the_head_alone_is_placed_by_its_difference_to_the_best_on_shared_folds(tables, verdict):
    best = verdict["best"]["trial"]
    scores = tables.cells[tables.cells["trial"] == best].set_index("fold")["score"]
    cells = [
        facts.HeadAlone(best, 0, 0, {"accuracy": float(scores[0]) - 0.10}),
        facts.HeadAlone(best, 0, 1, {"accuracy": float(scores[1]) - 0.12}),
        facts.HeadAlone(best, 0, 2, failure="loss became NaN"),
        facts.HeadAlone(best, 1, 0, {"accuracy": 0.99}),
    ]
    known = replace(tables, facts={**tables.facts, facts.HEAD_ALONE.name: facts.HEAD_ALONE.to_json(cells)})
    judged = judged_view(known, verdict)
    best_score = judged["score"][list(tables.trials["trial"]).index(best)]
    [baseline] = judged["baselines"]
    assert (baseline["name"], baseline["cells"]) == ("head alone", 2)
    assert baseline["score"] == pytest.approx(best_score - 0.11, abs=1e-5)
    assert judged_view(tables, verdict)["baselines"] == []


def test_csv_lines_are_the_file_s_even_where_a_failure_has_several():
    rows = [
        trial_row(0, 1, "attention", "all", 1e-3, failure='one "quoted"\nline, and\nanother'),
        trial_row(1, 2, "mlp", "all", 1e-3, failure="=HYPERLINK(1)\u2028'"),
    ]
    frame = pd.DataFrame(rows)
    lines = csv_lines(frame)
    assert len(lines) == 3
    assert "".join(lines) == csv_text(frame)
    assert "'=HYPERLINK(1)" in lines[2], "no spreadsheet computes it"


def test_inline_data_cannot_end_their_element():
    value = {"failure": "</script><script>alert(1)</script><!--"}
    text = str(inline_json(value))
    assert "<" not in text
    assert json.loads(text) == value


def test_script_and_style_ask_for_nothing():
    for text in (page_script(), page_style()):
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for forbidden in ("eval(", "new Function", "document.write", "insertAdjacentHTML", "outerHTML"):
        assert forbidden not in page_script()
    assert page_script().count("innerHTML") == 1


def test_two_thousand_trials_are_about_a_megabyte(tmp_path):
    rows = sampled_rows(2000)
    tables = study(tmp_path, rows[:1])
    trials = pd.DataFrame([dict(tables.trials.iloc[0], **row) for row in rows])
    generator = np.random.default_rng(0)
    cells = pd.concat([tables.cells] * 2000, ignore_index=True)
    cells["trial"] = np.repeat(np.arange(2000), 5)
    cells["score"] = generator.random(len(cells))
    large = type(tables)(tables.folder, tables.experiment, tables.environment, trials, cells, tables.facts)
    verdict = {"status": "no-trials", "sentence": "None.", "metric": "accuracy", "margin": 0.01, "confidence": 0.95}
    text = json.dumps(study_payload(large, judged_view(large, {**verdict, "warnings": []})))
    assert len(text) < 2_000_000


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("results/tickets", "lora-search run results/tickets/experiment.toml"),
        ("elsewhere/tickets", "lora-search run elsewhere/tickets/experiment.toml --results elsewhere"),
        ("my results/tickets", "lora-search run 'my results/tickets/experiment.toml' --results 'my results'"),
        ("tickets", "lora-search run tickets/experiment.toml --results ."),
        ("results/tickets-old", None),
    ],
)
def test_the_command_that_goes_on_with_a_study_names_its_results(folder, command):
    assert run_command(Path(folder), "tickets") == command


def test_a_study_that_is_the_folder_one_is_in_is_gone_on_with_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "tickets").mkdir()
    monkeypatch.chdir(tmp_path / "tickets")
    assert run_command(Path("."), "tickets") == f"lora-search run experiment.toml --results {tmp_path}"
