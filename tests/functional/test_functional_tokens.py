"""Token classification from the first command to the exported adapter, in a world of sixty sentences."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_decoder import write_rows
from tiny_world import BAD, GOOD, PLAIN, changed, settings, write_experiment

from lora_search import open_study, run_study
from lora_search.metrics.spans import part_of, strict_spans
from lora_search.plots.predicted import predictions_view
from lora_search.spec import Experiment
from lora_search.store.reader import read_predictions
from lora_search.study.examples import study_examples

TRIALS = 2


def tagged(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences in which praise and blame are to be found; some longer than the model reads at once."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        tokens: list[str] = []
        tags: list[str] = []
        for _ in range(draw.randint(1, 4) + 6 * (number % 10 == 0)):
            plain = draw.choices(PLAIN, k=draw.randint(1, 3))
            kind, words = draw.choice((("PRAISE", GOOD), ("BLAME", BAD)))
            found = draw.choices(words, k=draw.randint(1, 2))
            tokens += [*plain, *found]
            tags += ["O"] * len(plain) + [f"B-{kind}", f"I-{kind}"][: len(found)]
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def experiment_of(model: Path, data: Path, /, **tables: Any) -> dict[str, Any]:
    values = settings(
        model, data, model={"task": "token-classification"}, search={"trials": TRIALS}, verdict={"metric": "entity_f1"}
    )
    return changed(values, tables)


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("tagged") / "critics.jsonl", tagged())


@pytest.fixture(scope="session")
def study(world: Any, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = Experiment.model_validate(experiment_of(world.model, sentences))
    return run_study(experiment, tmp_path_factory.mktemp("results"), progress=False).folder


def test_what_is_recorded_are_counts_that_score_what_the_cells_scored(study: Path) -> None:
    tables = open_study(study)
    assert set(tables.cells["state"]) == {"complete"}
    assert "accuracy" not in tables.cells
    frame = read_predictions(study)
    assert set(frame.groupby("trial")["example"].nunique()) == {60}
    columns = [f"p{number}" for number in range(9)]
    for row in tables.cells.itertuples():
        mine = frame[(frame["trial"] == row.trial) & (frame["fold"] == row.fold)][columns].to_numpy()
        hits, found, actual = mine.sum(axis=0)[:3]
        assert row.score == row.entity_f1 == pytest.approx(2 * hits / max(1, found + actual))
    gold = frame[frame["trial"] == 0].sort_values("example")["p2"].to_numpy()
    rows = tagged()
    expected = [len(strict_spans([part_of(tag) for tag in row["tags"]], "IOB2")) for row in rows]
    assert gold.tolist() == expected, "no entity of a long sentence is lost"
    notes = tables.environment["data"]["notes"]
    assert any("read in windows that overlap" in note for note in notes)
    assert tables.environment["data"]["labels"] == ["O", "B-BLAME", "I-BLAME", "B-PRAISE", "I-PRAISE"]


def test_the_same_twice(study: Path, world: Any, sentences: Path, tmp_path: Path) -> None:
    experiment = Experiment.model_validate(experiment_of(world.model, sentences))
    again = run_study(experiment, tmp_path, progress=False).folder
    np.testing.assert_array_equal(read_predictions(again).to_numpy(), read_predictions(study).to_numpy())
    assert open_study(again).verdict()["sentence"] == open_study(study).verdict()["sentence"]


def test_learning_rates_are_looked_for_from_nothing(world: Any, sentences: Path, tmp_path: Path) -> None:
    values = experiment_of(world.model, sentences, search={"learning_rate": "auto", "trials": 3})
    tables = run_study(Experiment.model_validate(values), tmp_path, progress=False)
    assert len(tables.trials) == 3
    assert tables.verdict()["recommended"] is not None


def test_the_report_is_written_and_shows_what_was_found_and_missed(study: Path, lora_search: Any) -> None:
    assert lora_search("report", study).code == 0
    assert "entity F1" in (study / "report.html").read_text(encoding="utf-8")
    tables = open_study(study)
    view = predictions_view(tables, [0])
    assert view is not None
    mine = tables.predictions().query("trial == 0").sort_values("example")
    said = {name: view["predicted"]["0"][name] for name in ("hits", "marked")}
    assert [*said.values(), view["truth"]] == [mine[column].tolist() for column in ("p0", "p1", "p2")]
    first = study_examples(study)[0]
    assert first.label in ("PRAISE", "BLAME")
    assert first.text == " ".join(tagged()[0]["tokens"])


def test_the_exported_adapter_finds_the_entities_that_the_refit_finds(
    study: Path, lora_search: Any, tmp_path: Path
) -> None:
    answer = lora_search("export", study, tmp_path / "adapter", "--weights")
    assert answer.code == 0, answer.err
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "TOKEN_CLS"
    assert config["modules_to_save"] == ["classifier"]
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "its log loss per word differ by at most" in card
    assert "AutoModelForTokenClassification" in card
    snippet = card.partition("```python\n")[2].partition("```")[0]
    told: list[object] = []
    exec(snippet.replace("print(", "told.append("), {"told": told})
    ((*tags,),) = told
    assert len(tags) == 4, "two words between two special tokens"


def test_the_config_alone_and_no_recipe(study: Path, lora_search: Any, tmp_path: Path) -> None:
    assert lora_search("export", study, tmp_path / "config").code == 0
    answer = lora_search("export", study, tmp_path / "other", "--recipe", "trl")
    assert answer.code == 2
    assert "recipe: must be left out for token-classification" in answer.err


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"data": {"label": "tag"}}, "data.label: must be left out for token-classification, got 'tag'"),
        ({"verdict": {"metric": "accuracy"}}, "verdict.metric: must be entity_f1, entity_precision"),
        ({"data": {"tags": "ner"}}, "data.tags: must be a column of critics.jsonl, got 'ner' (columns: tokens, tags)"),
        ({"data": {"scheme": "BIOES"}}, "data.tags: must keep to BIOES, got"),
    ],
)
def test_a_wrong_key_is_one_line(
    world: Any, sentences: Path, lora_search: Any, tmp_path: Path, tables: dict[str, Any], line: str
) -> None:
    spec = write_experiment(tmp_path / "critics.toml", experiment_of(world.model, sentences, **tables))
    answer = lora_search("run", spec)
    assert answer.code == 2
    (told,) = answer.err.splitlines()
    assert line in told
    assert not (tmp_path / "results").exists()
