"""A study in a notebook."""

import re

from dashboard_builders import record
from fabricated_studies import sampled_rows

from lora_search import open_study
from lora_search.plots import importance


def test_a_notebook_shows_verdict_figures_and_no_script(tmp_path, monkeypatch):
    monkeypatch.setattr(importance, "importance_data", None)  # takes seconds, and is not shown
    record(tmp_path / "film-quotes", sampled_rows(4))
    study = open_study(tmp_path / "film-quotes")
    shown = study._repr_html_()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", shown)).replace("\xa0", " ")
    assert study.verdict()["sentence"].replace("\xa0", " ") in words
    assert shown.count("<svg") == 2
    assert "<script" not in shown
    assert len(shown) < 300_000


def test_what_people_wrote_is_text_in_a_notebook_too(tmp_path):
    rows = sampled_rows(3)
    rows[0]["targets"] = "<img src=x onerror=alert(1)>"
    record(tmp_path / "evil", rows)
    assert "<img" not in open_study(tmp_path / "evil")._repr_html_()
