"""Multi-label classification from the first command to the exported adapter: praise, joy and blame, several or none."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score
from tiny_decoder import write_rows
from tiny_world import BAD, GOOD, PLAIN, changed, settings

from lora_search import export_adapter, open_study, run_study
from lora_search.plots.predicted import predictions_view
from lora_search.plots.web.judged import judged_view
from lora_search.plots.web.payload import study_payload
from lora_search.spec import Experiment
from lora_search.statistics.examples import truth_of
from lora_search.store.predictions import read_examples
from lora_search.store.reader import read_predictions
from lora_search.study.examples import study_examples

RATES = {"low": 0.005, "high": 0.05}
WORDS = {"blame": BAD, "joy": GOOD[3:], "praise": GOOD[:3]}


def texts(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Each label shows in two of its words."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        labels = [label for label in WORDS if draw.random() < 0.4]
        words = draw.choices(PLAIN, k=3) + [word for label in labels for word in draw.choices(WORDS[label], k=2)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "feelings": labels})
    return rows


def experiment_of(model: Path | str, data: Path | str, /, **tables: Any) -> dict[str, Any]:
    values = settings(
        model, data, model={"task": "multi-label-classification"}, data={"label": "feelings"},
        search={"trials": 2, "layers": ["all"], "learning_rate": RATES}, verdict={"metric": "micro_f1"},
    )  # fmt: skip
    return changed(values, tables)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("feelings") / "feelings.jsonl", texts())


@pytest.fixture(scope="module")
def study(world: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = experiment_of(world.model, data, baselines={"include": ["majority", "tfidf"]})
    return run_study(Experiment.model_validate(values), tmp_path_factory.mktemp("results"), progress=False).folder


def test_what_is_recorded_are_probabilities_that_score_what_the_cells_scored(study: Path) -> None:
    tables = open_study(study)
    assert set(tables.cells["state"]) == {"complete"}
    assert tables.trials["learning_rate"].between(*RATES.values()).all()
    frame, truth = read_predictions(study), truth_of(read_examples(study))
    assert truth.tolist() == [[int(label in row["feelings"]) for label in WORDS] for row in texts()]
    for row in tables.cells.itertuples():
        mine = frame[(frame["trial"] == row.trial) & (frame["fold"] == row.fold)]
        answered, right = mine[["p0", "p1", "p2"]].to_numpy() >= 0.5, truth[mine["example"]]
        assert row.score == row.micro_f1 == pytest.approx(f1_score(right, answered, average="micro", zero_division=0))
        assert row.macro_f1 == pytest.approx(f1_score(right, answered, average="macro", zero_division=0))
        assert row.subset_accuracy == pytest.approx((answered == right).all(axis=1).mean())
    assert predictions_view(tables, [0, 1]) is None, "an example has no one label"
    assert study_examples(study)[0].label == (", ".join(texts()[0]["feelings"]) or "none")
    assert tables.environment["data"]["labels"] == list(WORDS)


def test_the_verdict_compares_it_with_frequencies_and_words(study: Path) -> None:
    verdict = json.loads((study / "verdict.json").read_text())
    assert "5 points" in verdict["sentence"]
    told = {row["title"]: row for row in verdict["baselines"]["compared"]}
    assert list(told) == ["label frequencies", "TF-IDF"]
    assert told["label frequencies"]["score_mean"] == 0.0, "no label is in half of the examples"
    assert told["TF-IDF"]["score_mean"] > 0.5
    assert told["TF-IDF"]["trainable_parameters"] > 3
    low, high = verdict["corrected_interval"]
    assert 0 <= low <= verdict["corrected_score"] <= high <= 1


def test_the_page_and_the_exported_adapter(study: Path, lora_search: Any, tmp_path: Path) -> None:
    tables = open_study(study)
    judged = judged_view(tables, tables.verdict() or {})
    assert "points to the best" in judged["html"]["summary"]
    assert study_payload(tables, judged)["metric"]["axis"] == "micro F1"
    out = export_adapter(study, tmp_path / "adapter", weights=True, progress=False)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "tells which of *blame*, *joy* and *praise* a text has" in card
    assert "A label is given where its probability is 0.5 or more" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    assert "problem_type='multi_label_classification'" in snippet[1]
    told: list[list[list[str]]] = []
    exec(snippet[1].replace("print(", "told.append("), {"told": told})
    assert [set(labels) <= set(WORDS) for labels in told[0]] == [True, True]
    answer = lora_search("export", study, tmp_path / "other", "--recipe", "axolotl")
    assert answer.code == 2
    assert "recipe: must be left out for multi-label-classification" in answer.err
