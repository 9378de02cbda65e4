"""The facade: read, clean, sample, group, report."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_search.data import load_dataset
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

ROWS: list[dict[str, Any]] = [
    {"quote": "Loved it", "kind": "fresh", "film": "a"},
    {"quote": "Hated it", "kind": "rotten", "film": "a"},
    {"quote": "The plot", "kind": "plot", "film": "a"},
    {"quote": "hated  it", "kind": "fresh", "film": "b"},
    {"quote": "So so", "kind": "rotten", "film": "c"},
    {"quote": "Fine", "kind": "fresh", "film": "d"},
]


def spec(folder: Path, rows: list[dict[str, Any]] = ROWS, **more: Any) -> DataSpec:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {"text": "quote", "label": "kind", "drop_labels": ("plot",), "group": "film"}
    return DataSpec(train=str(path), **(settings | more))


def test_a_dataset_is_read_cleaned_grouped_and_described(tmp_path: Path) -> None:
    dataset = load_dataset(spec(tmp_path), seed=0)
    assert dataset.texts == ("Loved it", "Hated it", "hated  it", "So so", "Fine")
    assert dataset.pairs is None
    assert dataset.label_names == ("fresh", "rotten")
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0]
    assert dataset.rows.tolist() == [1, 2, 4, 5, 6]
    assert dataset.groups.tolist() == [0, 0, 0, 1, 2], "films a and b share a text"
    assert len(dataset) == 5
    assert dataset.report.rows == 6
    assert dataset.report.examples == 5
    assert dataset.report.sentences() == (
        "5 examples of 2 labels: fresh (3), rotten (2).",
        "Rows dropped by label: plot (1).",
        "4 groups (film), each whole in one fold.",
        "1 text occurs more than once (2 examples); copies stay in one fold.",
        "1 text occurs with more than one label, the first in data rows 2, 4.",
    )


def test_plain_data_needs_one_sentence(tmp_path: Path) -> None:
    rows = [{"quote": "good", "kind": 1}, {"quote": "bad", "kind": 0}]
    dataset = load_dataset(spec(tmp_path, rows, drop_labels=(), group=None), seed=0)
    assert dataset.report.sentences() == ("2 examples of 2 labels: 0 (1), 1 (1).",)
    assert dataset.groups.tolist() == [0, 1]
    assert dataset.report.truncated_share is None


def test_pairs_both_ways_round_stay_in_one_fold_and_are_told(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("c", "d"), ("b", "A"), ("e", "f"), ("a", "b")]
    rows = [{"quote": one, "other": two, "kind": "xy"[n % 2]} for n, (one, two) in enumerate(pairs)]
    dataset = load_dataset(spec(tmp_path, rows, drop_labels=(), group=None, text_pair="other"), seed=0)
    assert dataset.groups.tolist() == [0, 1, 0, 2, 0]
    assert dataset.report.sentences()[1:] == (
        "1 text occurs more than once (2 examples); copies stay in one fold.",
        "1 text pair occurs both ways round; both stay in one fold.",
    )
    assert dataset.report.contradictions == ()


def test_a_sample_is_reported_and_seeded(tmp_path: Path) -> None:
    rows = [{"quote": f"text {number}", "kind": "ab"[number % 2]} for number in range(200)]
    sampled = spec(tmp_path, rows, drop_labels=(), group=None, max_examples=50)
    first, again, other = load_dataset(sampled, 0), load_dataset(sampled, 0), load_dataset(sampled, 1)
    assert first.report.label_counts == {"a": 25, "b": 25}
    assert "Sampled from 200 examples, each label in proportion." in first.report.sentences()
    assert first.texts == again.texts
    assert first.fingerprint == again.fingerprint
    assert first.texts != other.texts
    whole = load_dataset(sampled.model_copy(update={"max_examples": 200}), 0)
    assert whole.report.sampled_from is None


def test_the_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    def fingerprint(rows: list[dict[str, Any]], **more: Any) -> str:
        return load_dataset(spec(tmp_path, rows, **more), 0).fingerprint

    original = fingerprint(ROWS)
    assert fingerprint([ROWS[2], *ROWS[:2], *ROWS[3:]]) == original, "a dropped row elsewhere changes no example"
    assert fingerprint([{**ROWS[0], "quote": "loved it"}, *ROWS[1:]]) != original
    assert fingerprint([{**ROWS[0], "kind": "rotten"}, *ROWS[1:]]) != original
    assert fingerprint([*ROWS[:4], {**ROWS[4], "film": "d"}, ROWS[5]]) != original
    assert fingerprint(ROWS, text_pair="film") != original


def test_mistakes_name_rows_of_the_source(tmp_path: Path) -> None:
    rows = [*ROWS, {"quote": None, "kind": "fresh", "film": "d"}, {"quote": "x", "kind": None, "film": "d"}]
    with pytest.raises(DataError) as caught:
        load_dataset(spec(tmp_path, rows), seed=0)
    assert caught.value.mistakes == (
        "data.label: column 'kind' must be filled in, got missing labels in data row 8",
        "data.text: column 'quote' must be filled in, got empty texts in data row 7",
    )
