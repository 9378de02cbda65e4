"""What the dashboard answers: the list, a study's page and data, judgements, predictions, comparisons."""

import json
import os
import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from dashboard_builders import record, served
from fabricated_studies import sampled_rows

from lora_search.dashboard import create_app, downloads
from lora_search.dashboard.shelf import Shelf
from lora_search.statistics.judging import judge
from lora_search.store.reader import read_study


def test_the_list_says_of_every_study_how_far_it_is(site):
    answer = site.ask("/")
    rows = json.loads(re.search(r'id="rows-data">(.*?)</script>', answer.text)[1])
    assert answer.status == 200
    assert [row["name"] for row in rows] == ["film-quotes"]
    assert rows[0]["trials"] == rows[0]["trials_wanted"] == 24
    assert rows[0]["state"] == "stopped"
    assert rows[0]["best"].endswith("%")


def test_an_empty_folder_says_how_to_begin(tmp_path):
    with served(create_app(tmp_path)) as site:
        assert "No study here yet" in site.ask("/").text


def test_data_are_those_of_the_study(site, results):
    tables = read_study(results / "film-quotes")
    data = site.ask("/studies/film-quotes/data.json").json
    assert data["trials"]["trial"] == tables.trials["trial"].tolist()
    assert "".join(data["csv"]) == (results / "film-quotes" / "trials.csv").read_text(encoding="utf-8")
    assert data["judged"]["recommended"] == tables.verdict()["recommended"]["trial"]
    assert tables.verdict()["sentence"] in data["judged"]["html"]["verdict"]


def test_another_margin_is_judged_as_the_command_does(site, results):
    tables = read_study(results / "film-quotes")
    for margin, confidence in ((0.03, 0.95), (0.0, 0.8)):
        view = site.ask(f"/studies/film-quotes/judged.json?margin={margin}&confidence={confidence}").json
        verdict = judge(tables, margin, confidence)
        assert view["recommended"] == verdict.recommended.trial
        assert verdict.sentence() in view["html"]["verdict"]
        numbers = {item.trial: item.probability_not_worse for item in verdict.comparisons}
        for trial, probability in zip(tables.trials["trial"], view["probability"], strict=True):
            assert probability == pytest.approx(numbers[trial], rel=1e-5) if trial in numbers else probability is None


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("margin=2&confidence=0.9", "verdict.margin: must be"),
        ("margin=0.01&confidence=x", "confidence: must be a number"),
    ],
)
def test_a_margin_out_of_range_is_refused_in_words(site, query, words):
    answer = site.ask(f"/studies/film-quotes/judged.json?{query}")
    assert answer.status == 409
    assert words in answer.text


def test_predictions_are_pooled_over_folds(site, results):
    tables = read_study(results / "film-quotes")
    found = site.ask("/studies/film-quotes/predictions.json?trials=0,1,999").json
    assert found["labels"] == ["negative", "positive"]
    assert found["truth"] == tables.examples()["label"].tolist()
    assert set(found["predicted"]) == {"0", "1"}
    mine = tables.predictions().query("trial == 0").sort_values("example")
    assert found["predicted"]["0"] == (mine["p1"] > mine["p0"]).astype(int).tolist()


def test_what_is_expected_of_other_rates_is_asked_for_apart(tmp_path):
    rows = sampled_rows(4)
    record(
        tmp_path / "tuned", [*rows, *(dict(rows[1], trial=4 + at, learning_rate=1e-3 * (at + 1)) for at in range(3))]
    )
    with served(create_app(tmp_path)) as site:
        assert site.ask("/studies/tuned/data.json").json["rates"] is None
        found = site.ask("/studies/tuned/rates.json").json["rates"]
    assert {curve["rank"] for curve in found} <= {row["rank"] for row in rows}
    assert all(len(curve["rates"]) == len(curve["scores"]) > 1 for curve in found)
    assert found


def test_importance_is_asked_for_apart(site):
    found = site.ask("/studies/film-quotes/importance.json").json
    assert {bar["name"] for bar in found["bars"]} >= {"rank", "learning rate"}
    assert "random forest" in found["caption"]


def test_studies_are_compared_on_shared_folds(tmp_path):
    record(tmp_path / "one", sampled_rows(6))
    record(tmp_path / "other", sampled_rows(6, seed=5))
    record(tmp_path / "elsewhere", sampled_rows(4), experiment={"verdict": {"metric": "macro_f1", "margin": 0.01}})
    with served(create_app(tmp_path)) as site:
        found = site.ask("/compare.json?study=one&study=other&study=elsewhere").json
        assert "one, other" in site.ask("/compare?study=one&study=other").text
        assert site.ask("/compare.json?study=one&study=nowhere").status == 404
    assert [study["name"] for study in found["studies"]] == ["one", "other", "elsewhere"]
    [pair] = found["pairs"]
    assert (pair["one"], pair["other"], pair["folds"]) == ("one", "other", 5)


def test_foreign_half_written_and_older_folders_are_survived(tmp_path):
    record(tmp_path / "good", sampled_rows(3))
    for name, content in (("garbage", b"not a database"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.db").write_bytes(content)
    (tmp_path / "notes").mkdir()
    (tmp_path / "good" / "live.json").write_text("{", encoding="utf-8")
    with served(create_app(tmp_path)) as site:
        rows = json.loads(re.search(r'id="rows-data">(.*?)</script>', site.ask("/").text)[1])
        assert {row["name"]: "problem" in row for row in rows} == {"good": False, "garbage": True, "empty": True}
        assert site.ask("/studies/garbage").status == 409
        assert site.ask("/studies/good").status == 200
        (tmp_path / "good" / "verdict.json").write_text("{}", encoding="utf-8")
        assert read_study(tmp_path / "good").verdict()["sentence"].split()[0] in site.ask("/studies/good").text


def test_a_study_s_own_folder_can_be_shown(results):
    with served(create_app(results / "film-quotes")) as site:
        assert site.ask("/studies/film-quotes").status == 200


def test_adapter_files_come_from_the_export_command(site, monkeypatch):
    asked = []

    async def export(folder: Path, trial: int, recipe: str | None) -> dict[str, bytes]:
        asked.append((folder.name, trial, recipe))
        return {"adapter_config.json": b"{}", "recipe/train.py": b"pass"}

    monkeypatch.setattr(downloads, "_export", export)
    answer = site.ask("/studies/film-quotes/trials/3/adapter_config.json")
    assert (answer.status, answer.body) == (200, b"{}")
    packed = site.ask("/studies/film-quotes/trials/3/adapter.zip?recipe=trl")
    assert zipfile.ZipFile(BytesIO(packed.body)).namelist() == [
        "trial-3-trl/adapter_config.json",
        "trial-3-trl/recipe/train.py",
    ]
    site.ask("/studies/film-quotes/trials/3/adapter_config.json")
    assert asked == [("film-quotes", 3, None), ("film-quotes", 3, "trl")]
    assert site.ask("/studies/film-quotes/trials/99/adapter.zip").status == 409
    assert site.ask("/studies/film-quotes/trials/3/adapter.zip?recipe=rm").status == 409


def test_the_dashboard_imports_none_of_what_training_needs():
    code = (
        "import sys; from lora_search.dashboard import create_app; create_app('.');"
        "heavy = {'torch', 'optuna', 'transformers', 'datasets', 'peft', 'sklearn', 'matplotlib.pyplot'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_written_into_a_study_that_is_looked_at(tmp_path):
    folder = record(tmp_path / "quiet", sampled_rows(3))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with served(create_app(tmp_path)) as site:
        for path in ("/", "/studies/quiet", "/studies/quiet/data.json", "/studies/quiet/predictions.json?trials=0"):
            assert site.ask(path).status == 200
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_study_of_very_many_trials_is_not_judged_while_someone_waits(results, monkeypatch):
    monkeypatch.setattr("lora_search.dashboard.shelf.MOST_JUDGED_LIVE", 5)
    monkeypatch.setattr("lora_search.plots.web.payload.MOST_JUDGED_LIVE", 5)
    with served(create_app(results)) as site:
        data = site.ask("/studies/film-quotes/data.json").json
        refused = site.ask("/studies/film-quotes/judged.json?margin=0.02&confidence=0.95")
        recorded = site.ask("/studies/film-quotes/judged.json?margin=0.01&confidence=0.95")
    assert data["stops"] == {"margins": [0.01], "confidences": [0.95]}
    assert (refused.status, recorded.status) == (409, 200)
    assert refused.text.startswith(
        "margin: another one takes minutes with more than 5 complete trials; lora-search verdict"
    )


def test_the_newest_study_is_read_before_anyone_asks(tmp_path):
    shelf = Shelf(tmp_path)
    assert shelf.newest() is None
    shelf.prepare()
    for name, moment in (("older", 1_000_000), ("newer", 2_000_000)):
        record(tmp_path / name, sampled_rows(2))
        os.utime(tmp_path / name / "study.db", (moment, moment))
    shelf.prepare()
    assert shelf.newest() == "newer"
    assert (shelf.seconds("newer") > 0, shelf.seconds("older")) == (True, 0)
    (tmp_path / "newer" / "study.db").write_bytes(b"no database")
    shelf.prepare()
    with served(create_app(shelf)) as site:
        assert "older" in site.ask("/").text


def test_the_margins_of_the_slider_are_judged_before_it_is_moved(tmp_path, monkeypatch):
    record(tmp_path / "film-quotes", sampled_rows(4))
    snapshot = Shelf(tmp_path).snapshot("film-quotes")
    snapshot.payload()["unfinished"] = True
    snapshot.judge_ahead(0.01, 0.95)
    assert not snapshot._views
    snapshot.payload()["unfinished"] = False
    snapshot.judge_ahead(0.01, 0.95)
    assert [margin for margin, _ in snapshot._views] == sorted(
        snapshot.payload()["stops"]["margins"], key=lambda stop: abs(stop - 0.01)
    )
