"""report.html and the figure files: whole, self-contained, safe, the same twice."""

import errno
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_studies import ENVIRONMENT, by_error, every_state_rows, sampled_rows, study, trial_row, verdict_for
from PIL import Image

from lora_search.errors import StudyError
from lora_search.metrics import CLASS_METRICS
from lora_search.plots.encoding import LIGHT_AND_DARK
from lora_search.plots.landscape import landscape
from lora_search.plots.rows import summary_rows
from lora_search.plots.web import judged_view
from lora_search.reporting import render_report, write_report
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.statistics.judging import judge
from lora_search.store.ledger import Ledger
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey, CellResult, TrialRecord

FIGURES = ("folds", "importance", "score_by_parameters", "score_by_rank", "score_by_rate", "score_by_time")


class _Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = 0
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words)).replace("\xa0", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _render(tables: StudyTables, **changes: Any) -> str:
    experiment = tables.experiment
    verdict = verdict_for(
        tables.trials, tables.cells, folds=experiment.cv.folds, margin=experiment.verdict.margin,
        metric=experiment.verdict.metric, **changes,
    )  # fmt: skip
    return render_report(tables, json.loads(json.dumps(verdict)))


@pytest.fixture(scope="module", autouse=True)
def _judged_once() -> Iterator[None]:
    """What the sliders need is tested in a browser; without it a page is made in a third of the time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lora_search.reporting.page.judgement_grid", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> str:
    tables = study(tmp_path_factory.mktemp("study"), sampled_rows(16), noise=0.0004)
    return _render(
        tables,
        warnings=["Fewer than 30 examples per fold."],
        corrected_score=0.871,
        corrected_interval=[0.852, 0.889],
        holdout_score=0.868,
    )


def test_the_verdict_is_the_headline_and_the_numbers_follow(decided: str) -> None:
    page = _Page(decided)
    heading = re.search(r"<h1>(.*?)</h1>", decided)
    assert heading is not None
    assert "rank" in heading[1].lower()
    assert "16 trials · 80 trainings" in page.text
    assert "Corrected for having picked one of many, the best guess scores 87.1 % (85.2 to 88.9 %)." in page.text
    assert "On the hold-out, which no trial ever saw, it scores 86.8 %." in page.text
    assert "Fewer than 30 examples per fold." in page.text
    for words in (
        "Frozen means eval mode",
        "5-fold cross-validation",
        "Nadeau and Bengio 2003",
        "torch",
        "AMD EPYC 9R14",
    ):
        assert words in page.text, words
    assert "148,610 parameters of the task head" in page.text


def test_the_method_tells_of_what_was_searched_and_trained(decided: str, tmp_path: Path) -> None:
    usual = _Page(decided).text
    assert "DoRA" not in usual
    assert "Where ranks differ by module" not in usual
    assert "by their accuracy and log loss" in usual
    assert "The task head, and any pooler the checkpoint did not bring, are trained too" in usual
    search = {"rank": [1, 2], "trials": 4, "use_dora": [False, True], "rank_pattern": ["uniform", "eva"]}
    varied = _Page(_render(study(tmp_path, sampled_rows(4), experiment={"search": search}))).text
    assert "Those called DoRA learn the magnitude" in varied
    assert "EVA spreads the ranks" in varied


def test_a_language_model_is_told_of_as_one(tmp_path: Path) -> None:
    rows = [row | {"head_parameters": 0} for row in sampled_rows(4)]
    text = _Page(_render(by_error(study(tmp_path, rows), "completion_loss", 5.0, 0.02, "causal-lm"))).text
    for words in ("task head", "label column", "log loss"):
        assert words not in text, words
    assert "Nothing else is trained." in text
    assert "by their completion loss: the study begins" in text


def test_of_one_adapter_no_comparison_is_said(tmp_path: Path) -> None:
    tables = study(tmp_path, sampled_rows(1))
    judged = judged_view(tables, verdict_for(tables.trials, tables.cells))
    assert "shaded band" in judged["captions"]["cost"]
    assert not re.search("dashed|The bar", judged["captions"]["cost"])


def test_the_page_needs_nothing_from_anywhere(decided: str) -> None:
    page = _Page(decided)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, value)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", decided))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|@font-face|url\((?!#)", decided)
    [policy] = [meta for meta in page.named("meta") if meta.get("http-equiv")]
    assert "default-src 'none'" in (policy["content"] or "")


def test_identifiers_are_unique_and_references_resolve(decided: str) -> None:
    identifiers = [attributes["id"] for _, attributes in _Page(decided).tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    references = set(re.findall(r"url\(#([^)]+)\)", decided)) | set(re.findall(r'href="#([^"]+)"', decided))
    assert len(references) > 10
    assert references <= set(identifiers)


def test_figures_follow_the_theme_of_the_page(decided: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", decided, flags=re.DOTALL)
    figures = [svg for svg in svgs if 'role="img"' in svg]
    assert len(figures) == len(FIGURES)
    assert all('aria-label="' in svg for svg in figures)
    for svg in figures:
        bare = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", svg)
        assert not re.findall(r"#[0-9a-f]{6}\b(?=[;\"])", bare)
    for name, (_, dark) in LIGHT_AND_DARK.items():
        assert f"--{name}: {dark};" in decided
    assert "<text" in figures[0]


def test_what_people_wrote_is_escaped(tmp_path: Path) -> None:
    rows = [*sampled_rows(2), trial_row(2, 1, "attention", "all", 1e-3, state="failed", failure="<b>boom</b> & gone")]
    tables = study(tmp_path, rows, experiment={"data": {"train": "<script>alert(1)</script>.csv"}})
    text = _render(tables, warnings=["a <i>warning</i>"], sentence="5 < 6 & <em>so</em>")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.csv" in text
    assert "&lt;b&gt;boom&lt;/b&gt; &amp; gone" in text
    assert "a &lt;i&gt;warning&lt;/i&gt;" in text
    assert "<h1>5 &lt; 6 &amp; &lt;em&gt;so&lt;/em&gt;</h1>" in text


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    tables = study(tmp_path, sampled_rows(4))
    assert _render(tables) == _render(tables)


def test_every_trial_is_in_the_table_with_its_state_and_reason(tmp_path: Path) -> None:
    text = _render(study(tmp_path, every_state_rows(), pack=8))
    page = _Page(text)
    assert "24 trials, 4 stopped, 1 failed, 1 running" in page.text
    assert "loss became NaN at step 12" in page.text
    table = text[text.index('<section class="plain-trials">') :]
    rows = re.findall(r'<tr class="(complete|pruned|failed|running)', table)
    assert {state: rows.count(state) for state in set(rows)} == {"complete": 18, "pruned": 4, "failed": 1, "running": 1}
    assert "Several trainings share the frozen base in one pack" in page.text


def test_a_guess_that_failed_is_still_shown_beside_the_recommended(tmp_path: Path) -> None:
    rows = sampled_rows(4)
    rows[0] |= {"state": "failed", "failure": "loss became NaN"}
    text = _render(study(tmp_path, rows))
    summary = _Page(text[text.index('<section id="summary"') : text.index('<section id="warnings"')])
    assert "the guess r=8, query+value, all layers" in summary.text
    assert "failed" in summary.text


def test_a_guess_that_was_stopped_is_scored_by_what_its_folds_are_worth(tmp_path: Path) -> None:
    """Its own mean, over the fold it has, is no number to put beside those over all."""
    rows = sampled_rows(4)
    rows[0] |= {"state": "pruned", "cells": 1}
    tables = study(tmp_path, rows)
    verdict = verdict_for(tables.trials, tables.cells, folds=tables.experiment.cv.folds)
    scene = landscape(tables.trials, tables.cells, verdict)
    (row,) = (row for row in summary_rows(tables.trials, scene, verdict) if row.trial == 0)
    placed = scene.point(0)
    assert placed is not None
    assert row.cells["score"].text == scene.unit.score(placed.score)
    assert row.cells["score"].note == "after 1 training"
    assert row.cells["score"].text != scene.unit.score(float(tables.trials["score_mean"][0]))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "No trial was trained to the end"),
        ([trial_row(0, 8, "attention", "all", 1e-3, state="running", cells=1)], "No trial was trained to the end"),
        (sampled_rows(1), "there is nothing to compare it with"),
        (sampled_rows(2), "ank"),
    ],
)
def test_small_studies_have_a_page_too(tmp_path: Path, rows: list[dict[str, Any]], sentence: str) -> None:
    page = _Page(_render(study(tmp_path, rows)))
    assert sentence in page.text
    assert "What moved the score" in page.text
    assert "too few to say, 10 needed" in page.text


def test_an_undecided_study_does_not_claim_a_recommendation(tmp_path: Path) -> None:
    tables = study(tmp_path, sampled_rows(6), noise=0.01)
    text = _render(tables)
    assert "Cannot tell" in text
    assert not re.search(r"<b>[^<]*recommended(?! so far)", text)


def test_several_guesses_are_shown_beside_the_recommended(tmp_path: Path) -> None:
    rows = sampled_rows(6)
    rows[1] |= {"origin": "guess"}
    text = _render(study(tmp_path, rows))
    summary = _Page(text[text.index('<section id="summary"') : text.index('<section id="warnings"')])
    assert "trial 0," in summary.text
    assert "trial 1," in summary.text
    assert "the guess" not in summary.text


def test_columns_that_do_not_vary_are_left_out(tmp_path: Path) -> None:
    rows = sampled_rows(3)
    assert ">dropout</th>" not in _render(study(tmp_path, rows))
    rows[1] |= {"dropout": 0.1}
    assert ">dropout</th>" in _render(study(tmp_path, rows))


def _record(folder: Path, tables: StudyTables) -> None:
    """The fabricated study, as a run would have recorded it."""
    generator = np.random.default_rng(0)
    with Ledger.open(folder, tables.experiment, ENVIRONMENT) as ledger:
        for row in tables.trials.to_dict("records"):
            adapter = AdapterSpec(**{name: row[name] for name in AdapterSpec.model_fields})
            nuisance = Nuisance(learning_rate=row["learning_rate"], dropout=row["dropout"])
            ledger.add_trial(
                TrialRecord(
                    row["trial"], adapter, nuisance, row["adapter_parameters"], row["head_parameters"], row["origin"],
                    row["state"], row["failure"],
                )
            )  # fmt: skip
        for row in tables.cells.to_dict("records"):
            numbers = {
                name: row[name]
                for name in (
                    "train_loss",
                    "train_examples",
                    "steps",
                    "tokens",
                    "seconds",
                    "wall_seconds",
                    "pack",
                    "pack_cells",
                )
            }
            ledger.add_cell(
                CellResult(
                    key=CellKey(row["trial"], row["repeat"], row["fold"]), state="complete",
                    scores={metric.name: row[metric.name] for metric in CLASS_METRICS}, examples=np.arange(4),
                    probabilities=generator.dirichlet([1, 1], 4).astype(np.float32), **numbers,
                )
            )  # fmt: skip


def test_a_recorded_study_gets_its_figures_and_its_page(tmp_path: Path) -> None:
    tables = study(tmp_path, sampled_rows(4))
    folder = tmp_path / "film-quotes"
    _record(folder, tables)
    before = write_report(folder)
    assert before == folder / "report.html"
    without_verdict_file = before.read_text(encoding="utf-8")

    with Ledger.open(folder, tables.experiment, ENVIRONMENT) as ledger:
        ledger.write_verdict({**judge(ledger.tables()).to_dict(), "sentence": "The recorded sentence."})
    write_report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>The recorded sentence.</h1>" in text
    sentence = r"(<|\\u003c)(h1|title)>.*?(<|\\u003c)"
    assert re.sub(sentence, "", without_verdict_file) == re.sub(sentence, "", text)
    written = sorted(path.name for path in (folder / "figures").iterdir())
    assert written == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg"))
    for name in FIGURES:
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width == round(7.6 * 160)
        svg = (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert "<text" in svg
        assert "<dc:date>" not in svg
    assert not list(folder.rglob("*.tmp"))


def test_a_page_that_cannot_be_finished_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = study(tmp_path, sampled_rows(2))
    folder = tmp_path / "film-quotes"
    _record(folder, tables)
    (folder / "report.html").write_text("the one before", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match=r"must be a place that can be written to, got No space left"):
        write_report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == "the one before"
    assert not list(folder.rglob("*.tmp"))


def test_a_folder_without_a_study_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must be the folder of a study"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
