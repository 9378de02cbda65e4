"""Any number of labels per example, however a source has them; what is wrong with them; folds that spread them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lora_search.data import Splits
from lora_search.data.label_sets import LabelSetDataset, load_label_sets
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec
from lora_search.tasks import task_of

SETS = [["joy", "anger"], [], ["joy"], ["fear"], ["anger", "fear"], ["joy", "joy"]]
HAVING = {"anger": 2, "fear": 2, "joy": 3}


def load(path: Path, **data: Any) -> LabelSetDataset:
    return load_label_sets(DataSpec.model_validate({"train": str(path), **data}), seed=0)


def write(path: Path, labels: list[Any], column: str = "label") -> Path:
    rows = [{"text": f"text {number}", column: value} for number, value in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def csv(path: Path, labels: list[str], header: str = "text,label") -> Path:
    path.write_text(f"{header}\n" + "".join(f"text {n},{value}\n" for n, value in enumerate(labels)), encoding="utf-8")
    return path


def quoted(labels: list[list[str]], sign: str) -> list[str]:
    return [f'"{sign.join(names)}"' for names in labels]


WAYS = {
    "lists": lambda folder: (write(folder / "a.jsonl", SETS), {}),
    "commas": lambda folder: (csv(folder / "a.csv", quoted(SETS, ", ")), {}),
    "bars": lambda folder: (csv(folder / "a.csv", quoted(SETS, "|")), {}),
    "a sign of one's own": lambda folder: (csv(folder / "a.csv", quoted(SETS, "/")), {"label_separator": "/"}),
    "spaces": lambda folder: (csv(folder / "a.csv", quoted(SETS, "  ")), {"label_separator": " "}),
    "lists as pandas writes them": lambda folder: (csv(folder / "a.csv", [f'"{names}"' for names in SETS]), {}),
    "arrays as pandas writes them": lambda folder: (
        csv(folder / "a.csv", [f'"{np.array(names, dtype=object)}"' for names in SETS]),
        {},
    ),
    "sets as pandas writes them": lambda folder: (
        csv(folder / "a.csv", [f'"{set(names) if names else set()}"' for names in SETS]),
        {},
    ),
    "tuples as pandas writes them": lambda folder: (csv(folder / "a.csv", [f'"{tuple(names)}"' for names in SETS]), {}),
    "columns": lambda folder: (
        csv(
            folder / "a.csv",
            [",".join(str(int(name in names)) for name in HAVING) for names in SETS],
            "text,anger,fear,joy",
        ),
        {"label": list(HAVING)},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_them_gives_the_same(way: str, tmp_path: Path) -> None:
    path, data = WAYS[way](tmp_path)
    found = load(path, **data)
    assert found.label_names == ("anger", "fear", "joy")
    assert found.answers is not None
    assert found.answers.tolist() == [[int(name in names) for name in found.label_names] for names in SETS]
    assert [found.label_of(example) for example in (0, 1, 5)] == ["anger, joy", "none", "joy"]
    assert found.labels.tolist() == [0, 3, 2, 1, 0, 2], "the rarest of each"
    assert found.report.sentences()[0] == (
        "6 examples of 3 labels, 1.2 each on average: anger (2), fear (2), joy (3); 1 without any."
    )
    assert found.report.examples == 6
    told = [sentence for sentence in found.report.sentences() if "separated" in sentence or "spell" in sentence]
    expected = {
        "commas": "separated by commas",
        "bars": "separated by bars",
        **{f"{kind} as pandas writes them": "they spell" for kind in ("lists", "arrays", "sets", "tuples")},
    }
    assert len(told) == (way in expected)
    assert all(expected[way] in sentence for sentence in told)


MULTI_HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (MULTI_HOT, "[1, 0, 1]"),
        ([[float(value) for value in values] for values in MULTI_HOT], "[1.0, 0.0, 1.0]"),
        ([[bool(value) for value in values] for values in MULTI_HOT], "[true, false, true]"),
        ([str(values) for values in MULTI_HOT], "[1, 0, 1]"),
        ([str(np.array(values, dtype=float)) for values in MULTI_HOT], "[1.0, 0.0, 1.0]"),
        (["1, 0, 1", "0, 0, 0", "0, 1, 0"], '["1", "0", "1"]'),
    ],
)
def test_a_list_of_0_and_1_for_each_label_is_no_list_of_labels(tmp_path: Path, labels: Any, shown: str) -> None:
    with pytest.raises(DataError) as caught:
        load(write(tmp_path / "a.jsonl", labels))
    assert caught.value.mistakes == (
        f"data.label: column 'label' must hold the names of labels, got lists of 3 values that are 0 or 1, such as"
        f" '{shown}'; give each label a column of its own, 0 or 1: label = [...] of 3 columns",
    )


def test_labels_may_be_called_0_and_1(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.jsonl", [[0], [1], [0, 1], []])).label_names == ("0", "1")
    assert load(write(tmp_path / "b.jsonl", [[0, 1], [1, 2], [2, 0]])).label_names == ("0", "1", "2")


def test_texts_in_brackets_that_spell_no_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(csv(tmp_path / "a.csv", ['"{toxic,insult}"', '"{toxic}"', '"{insult}"']))
    assert caught.value.mistakes == (
        "data.label: column 'label' must hold lists of strings or whole numbers, or texts, got '{toxic,insult}' (str)"
        " in data rows 1, 2, 3",
    )


def test_parquet_and_the_names_a_source_has(tmp_path: Path) -> None:
    import datasets

    feature = datasets.List(datasets.ClassLabel(names=["joy", "fear", "never", "anger"]))
    numbers = [[0, 3], [], [0], [1], [3, 1], [0]]
    rows = datasets.Dataset.from_dict(
        {"text": [f"text {n}" for n in range(6)], "label": numbers},
        features=datasets.Features({"text": datasets.Value("string"), "label": feature}),
    )
    rows.to_parquet(tmp_path / "a.parquet")
    found = load(tmp_path / "a.parquet")
    assert found.label_names == ("joy", "fear", "anger"), "in the source's order, those that occur"
    assert found.answers is not None
    assert found.answers.sum(axis=0).tolist() == [3, 2, 2]


def test_labels_left_out_leave_their_examples(tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.jsonl", SETS), drop_labels=["fear"])
    assert found.label_names == ("anger", "joy")
    assert len(found) == 6
    assert "Labels left out: fear (2)." in found.report.sentences()
    assert found.label_of(3) == "none"


def test_labels_that_never_come_together_are_told(tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.jsonl", [["joy"], ["fear"], []]))
    assert any("no example has more than one label" in warning for warning in found.report.warnings())
    assert load(write(tmp_path / "b.jsonl", SETS)).report.warnings() == ()


def test_a_label_that_is_written_where_there_is_none_is_told(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", ["joy;anger", "anger", "nan", "joy;anger", "nan"])
    (warning,) = load(path).report.warnings()
    assert warning.startswith("Warning: 'nan' (2) is a label here")
    assert load(path, drop_labels=["nan"]).report.warnings() == ()


def test_labels_that_look_alike_are_told_whichever_is_the_rarest(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", ["a;B", "A", "b"] * 20)
    assert load(path, label_separator=";").report.warnings() == (
        "Warning: labels that differ only in case, spaces, invisible characters or the way a number is written are"
        " labels of their own: 'A' (20), 'a' (20); 'B' (20), 'b' (20). If they mean the same, make them one in the"
        " data.",
    )


def test_a_sample_has_some_of_every_label_or_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [["a"], ["b"], ["a", "b"], []] * 25 + [["c", "a"]])
    with pytest.raises(
        DataError, match=r"must leave an example of every label, got 4, which leaves none of 'c' \(1 of 101\)"
    ):
        load(path, max_examples=4)
    found = load(path, max_examples=20, drop_labels=["c"])
    assert found.answers is not None
    assert len(found) == 20
    assert found.answers.sum(axis=0).tolist() == pytest.approx([10, 10], abs=2)


@st.composite
def memberships(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    folds, count = draw(st.integers(2, 5)), draw(st.integers(60, 150))
    members = (rng.random((count, 5)) < rng.choice([0.15, 0.3, 0.6], 5)).astype(np.uint8)
    assume(members.sum(axis=0).min() >= folds)  # fewer are refused
    return members, np.arange(count), folds


@given(made=memberships())
@settings(max_examples=25)
def test_every_fold_has_its_share_of_every_label_and_of_examples(made: tuple[np.ndarray, np.ndarray, int]) -> None:
    members, groups, folds = made
    everyone = np.ones((len(members), 1), dtype=np.int64)
    splits = Splits.make(
        np.concatenate([members.astype(np.int64), everyone], axis=1), groups, folds=folds, holdout=0.0, seed=0
    )
    parts = [splits.fold(0, fold).evaluate for fold in range(folds)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(members)))
    for part in parts:
        assert len(part) == pytest.approx(len(members) / folds, abs=4)
        assert members[part].sum(axis=0).tolist() == pytest.approx((members.sum(axis=0) / folds).tolist(), abs=4)


def test_groups_stay_whole(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": SETS[n % 6], "film": f"film {n // 3}"} for n in range(60)]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    dataset = load(tmp_path / "a.json", group="film")
    splits = task_of("multi-label-classification").split(dataset, folds=4, holdout=0.2, seed=1)
    for fold in range(4):
        split = splits.fold(0, fold)
        assert not set(dataset.groups[split.train]) & set(dataset.groups[split.evaluate])
        assert not set(dataset.groups[split.train]) & set(dataset.groups[splits.holdout])
