"""Regression from the first command to the exported adapter: how many lovely words there are among the dull ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny_decoder import write_decoder, write_rows
from tiny_world import GOOD, changed, sentences, settings

from lora_search import export_adapter, open_study, run_study
from lora_search.plots.predicted import predictions_view
from lora_search.spec import Experiment
from lora_search.store.predictions import read_examples
from lora_search.store.reader import read_predictions, read_study
from lora_search.study import prepare
from lora_search.study.examples import study_examples
from lora_search.study.trial_export import check_export


def prices(count: int = 60) -> list[dict[str, Any]]:
    """A text is worth 200 more for every good word, and a little for its length."""
    rows = [(text, 1000.0 + 200.0 * sum(word in GOOD for word in text.split())) for text, _ in sentences(count)]
    return [{"text": text, "price": price + len(text) / 10} for text, price in rows]


def experiment_of(model: Path | str, data: Path | str, /, **tables: Any) -> dict[str, Any]:
    values = settings(
        model, data, model={"task": "regression"}, data={"label": "price"},
        search={"trials": 2, "layers": ["all"], "learning_rate": {"low": 0.005, "high": 0.05}},
        verdict={"metric": "rmse", "margin": 20},
    )  # fmt: skip
    return changed(values, tables)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("prices") / "prices.jsonl", prices())


@pytest.fixture(scope="module")
def study(world: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compared = {"include": ["majority", "tfidf", "head"], "learning_rate": {"head": 0.1}}
    values = experiment_of(world.model, data, baselines=compared)
    return run_study(Experiment.model_validate(values), tmp_path_factory.mktemp("results"), progress=False).folder


def test_what_is_recorded_is_in_the_unit_of_the_label_and_scores_what_the_cells_scored(study: Path) -> None:
    tables = open_study(study)
    assert set(tables.cells["state"]) == {"complete"}
    frame, truth = read_predictions(study), read_examples(study)["t0"].to_numpy()
    np.testing.assert_allclose(truth, [row["price"] for row in prices()])
    for row in tables.cells.itertuples():
        mine = frame[(frame["trial"] == row.trial) & (frame["fold"] == row.fold)]
        predicted, right = mine["p0"].to_numpy(dtype=float), truth[mine["example"]]
        assert row.score == row.rmse == pytest.approx(np.sqrt(((predicted - right) ** 2).mean()))
        assert row.pearson == pytest.approx(stats.pearsonr(predicted, right)[0])
        assert row.spearman == pytest.approx(stats.spearmanr(predicted, right)[0])
    assert predictions_view(tables, [0, 1]) is None, "there are no labels to be confused"
    assert study_examples(study)[0].label == f"{truth[0]:.6g}"
    (note, *_) = tables.environment["data"]["notes"]
    assert note.startswith(f"60 examples, price from {truth.min():.6g} to {truth.max():.6g}, mean ")


def test_less_is_better_and_told_in_the_unit_of_the_label(study: Path, lora_search: Any) -> None:
    tables = open_study(study)
    means = tables.trials.set_index("trial")["score_mean"]
    verdict = json.loads((study / "verdict.json").read_text())
    assert verdict["best"]["trial"] == int(means.idxmin())
    assert "20 label units" in verdict["sentence"]
    told = {row["title"]: row for row in verdict["baselines"]["compared"]}
    assert list(told) == ["mean", "TF-IDF", "head alone"]
    spread = read_examples(study)["t0"].std()
    assert told["mean"]["score_mean"] == pytest.approx(spread, rel=0.1)
    assert told["TF-IDF"]["score_mean"] < told["mean"]["score_mean"]
    ours = means[verdict["recommended"]["trial"]]
    assert told["mean"]["difference"] == pytest.approx(ours - told["mean"]["score_mean"], rel=1e-3)
    low, high = told["mean"]["score_interval"]
    assert 0 <= low <= told["mean"]["score_mean"] <= high
    answer = lora_search("verdict", study, "--margin", 250)
    assert answer.code == 0, answer.err
    assert "250 label units" in answer.out


def test_the_page_shows_errors_as_they_are_and_less_above_more(
    study: Path, plain_reports: Any, lora_search: Any
) -> None:
    from lora_search.plots.web.judged import judged_view
    from lora_search.plots.web.payload import study_payload

    tables = read_study(study)
    judged = judged_view(tables, tables.verdict() or {})
    payload = study_payload(tables, judged)
    assert payload["metric"]["axis"] == "RMSE (label units, less is better)"
    assert payload["stops"]["margins"] == [0, 2.5, 5, 10, 15, 20, 30, 40, 50, 75, 100]
    assert payload["trials"]["score_mean"] == pytest.approx((-tables.trials["score_mean"]).tolist(), rel=1e-4)
    assert [line["name"] for line in judged["baselines"]].index("mean") == 0, "the worst first"
    assert "label units to the recommended" in judged["html"]["beside"]
    assert lora_search("report", study).code == 0
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "RMSE" in page
    assert "20\N{NO-BREAK SPACE}label units" in page


def test_the_exported_adapter_answers_in_the_unit_of_the_label(study: Path, tmp_path: Path) -> None:
    out = export_adapter(study, tmp_path / "adapter", weights=True, progress=False)
    assert json.loads((out / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "gives a text its *price*, a number" in card
    assert "The numbers are in the unit of the label" in card
    assert "pipeline_tag: text-classification" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    assert "problem_type='regression'" in snippet[1]
    told: list[list[float]] = []
    exec(snippet[1].replace("print(", "told.append("), {"told": told})
    (numbers,) = told
    assert all(800 < number < 2200 for number in numbers)


def test_a_decoder_without_a_bias_is_exported_with_what_has_to_be_added(data: Path, tmp_path: Path) -> None:
    from lora_search.export.card import usage
    from lora_search.handover import loading_of

    prepared = prepare(Experiment.model_validate(experiment_of(write_decoder(tmp_path / "model"), data)))
    assert check_export(prepared) == ()
    train = prepared.splits.development
    loading = loading_of(prepared.experiment.model, prepared.base, prepared.data, train, pairs=False)
    assert loading.offset == pytest.approx(np.mean([row["price"] for row in prices()]))
    assert f"[number + {loading.offset!r} for (number,) in" in usage(loading, tmp_path)


def test_a_recipe_is_refused(study: Path, tmp_path: Path, lora_search: Any) -> None:
    answer = lora_search("export", study, tmp_path / "other", "--recipe", "trl")
    assert answer.code == 2
    assert "recipe: must be left out for regression: recipes are of text classification" in answer.err
