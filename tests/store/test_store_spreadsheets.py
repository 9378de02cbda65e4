"""No cell of our tables is taken for a formula."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest

from lora_search.store.spreadsheets import without_formulas


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
@pytest.mark.parametrize("kind", ["object", "str"])
def test_what_a_spreadsheet_would_compute_is_text(text: str, kind: str) -> None:
    frame = pd.DataFrame({"failure": pd.Series([text, "query,value", None], dtype=kind), "score": [-0.5, 1.0, 0.0]})
    table = pd.read_csv(io.StringIO(without_formulas(frame).to_csv(index=False)), keep_default_na=False)
    assert table["failure"].tolist() == [f"'{text}".replace("\r", "\n"), "query,value", ""]
    assert table["score"].tolist() == [-0.5, 1.0, 0.0], "a negative number is a number"


def test_a_text_stays_in_its_row() -> None:
    written = without_formulas(pd.DataFrame({"failure": ["first\r=1+1", "a\r\nb"]})).to_csv(index=False)
    assert "\r" not in written
    assert list(csv.reader(io.StringIO(written))) == [["failure"], ["first\n=1+1"], ["a\nb"]]


def test_other_tables_stay_as_they_are() -> None:
    frame = pd.DataFrame({"a": ["x", "=y"[1:]], "b": [1, -2], "c": pd.to_datetime(["2026-01-01", None])}, index=[3, 4])
    pd.testing.assert_frame_equal(without_formulas(frame), frame)
