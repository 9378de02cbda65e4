"""Numbers for texts: read from anywhere, spread over folds by their ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.numbers import NumberDataset, load_numbers, rank_strata
from lora_search.spec.experiment import DataSpec
from lora_search.tasks import task_of


def load(path: Path, **data: Any) -> NumberDataset:
    return load_numbers(DataSpec.model_validate({"train": str(path), **data}), seed=0)


def write(path: Path, values: list[Any]) -> Path:
    path.write_text(json.dumps([{"text": f"text {n}", "label": value} for n, value in enumerate(values)]))
    return path


def test_whatever_spells_a_number_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\nb, 2.5 \nc,-1e-1\nd,+.5\n", encoding="utf-8")
    found = load(tmp_path / "a.csv")
    assert found.answers is not None
    assert found.answers.tolist() == [1.0, 2.5, -0.1, 0.5]
    assert found.label_names == ("label",)
    assert [found.label_of(example) for example in range(2)] == ["1", "2.5"]
    other = load(write(tmp_path / "b.json", [1, 2.5, -0.1, 0.5]))
    assert other.answers is not None
    np.testing.assert_array_equal(other.answers, found.answers)


def test_pairs_and_copies_with_two_numbers(tmp_path: Path) -> None:
    rows = [{"a": "one", "b": "two", "score": score} for score in (1.0, 3.0)] + [{"a": "x", "b": "y", "score": 2.0}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    found = load(tmp_path / "a.json", text="a", text_pair="b", label="score")
    assert found.pairs == ("two", "two", "y")
    assert found.groups.tolist() == [0, 0, 1]
    assert "1 text occurs with more than one label, the first in data rows 1, 2." in found.report.sentences()
    assert found.report.sentences()[0].startswith("3 examples, score from 1 to 3, mean 2, standard deviation 0.8165")


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=60), count=st.integers(1, 10))
def test_strata_are_ranges_of_ranks(values: list[int], count: int) -> None:
    numbers = np.array(values, dtype=float)
    strata = rank_strata(numbers, count)
    assert strata.min() >= 0
    assert strata.max() < count
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(strata[order]) >= 0).all(), "the greater the number, the later"
    for value in set(values):
        assert len(set(strata[numbers == value])) == 1, "equal numbers are together"


def test_folds_and_samples_have_small_and_great_numbers_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.json", np.exp(2 * rng.normal(size=400)).round(3).tolist())
    found = load(path, max_examples=200)
    assert found.answers is not None
    assert len(found) == 200
    assert any("small and great numbers in proportion" in sentence for sentence in found.report.sentences())
    splits = task_of("regression").split(found, folds=4, holdout=0.2, seed=0)
    great = found.answers > np.median(found.answers)
    for part in (splits.holdout, *(splits.fold(0, fold).evaluate for fold in range(4))):
        assert great[part].mean() == pytest.approx(0.5, abs=0.06)
