"""json in the shapes people keep tables in."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from lora_search.data.records import read_json
from lora_search.data.table import Table
from lora_search.errors import DataError

WANTED = {"data.text": "text", "data.label": "label"}
RECORDS = [{"text": "good", "label": 1, "id": 7}, {"text": "bad", "label": 0, "id": 8}]
COLUMNS = {"text": ["good", "bad"], "label": [1, 0]}
FRAME = pd.DataFrame(RECORDS, index=["r", "s"])


def read(value: Any, split: str = "train", wanted: dict[str, str] = WANTED) -> Table:
    text = value if isinstance(value, str) else json.dumps(value)
    return read_json(text.encode(), "a.json", wanted, split)


def mistakes(value: Any, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read(value, split)
    return "\n".join(caught.value.mistakes)


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_every_way_pandas_writes_a_frame(orient: Any) -> None:
    assert read(FRAME.to_json(orient=orient)).columns == COLUMNS


def test_an_object_of_lists() -> None:
    assert read({"text": ["good", "bad"], "label": [1, 0], "source": "mine"}) == Table(COLUMNS)


def test_rows_by_index_follow_the_first_columns_order() -> None:
    assert read({"text": {"b": "good", "a": "bad"}, "label": {"a": 0, "b": 1}}).columns == COLUMNS


def test_records_under_data() -> None:
    found = read({"version": "1", "data": RECORDS})
    assert found.columns == COLUMNS
    assert found.notes == ("The rows are those under 'data' of a.json.",)


@pytest.mark.parametrize("key", ["rows", "examples", "train"])
@pytest.mark.parametrize("table", [RECORDS, {"text": ["good", "bad"], "label": [1, 0]}])
def test_a_table_under_the_only_key_that_has_one(key: str, table: Any) -> None:
    assert read({"license": "none", "tags": ["a", "b"], key: table}).columns == COLUMNS


def test_the_split_chooses_among_several() -> None:
    value = {"train": RECORDS, "test": [{"text": "so", "label": 2}]}
    assert read(value).notes == ("The rows are those under 'train' of a.json; it also has 'test'.",)
    assert read(value, "test").columns == {"text": ["so"], "label": [2]}
    assert mistakes({"one": RECORDS, "two": RECORDS}) == (
        "data.split: must be one of 'one', 'two' of a.json, got 'train'"
    )


@pytest.mark.parametrize("test", [{"text": ["so"], "label": [2]}, {"text": {"a": "so"}, "label": {"a": 2}}])
def test_columns_under_the_names_of_splits(test: Any) -> None:
    value = {"train": COLUMNS, "test": test}
    assert read(value).columns == COLUMNS
    assert read(value, "test").columns == {"text": ["so"], "label": [2]}
    assert read({"train": COLUMNS}).columns == COLUMNS


WORDS = {"data.tokens": "tokens", "data.tags": "tags"}
TALK = [{"role": "user", "content": "one ?"}, {"role": "assistant", "content": "two"}]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"text": "good", "label": ["a", "b"]}, WANTED),
        ({"tokens": ["Ada", "wrote"], "tags": ["B-PER", "O"]}, WORDS),
        ({"messages": TALK}, {"data.messages": "messages"}),
        ({"prompt": "one ?", "completion": "two"}, {"data.prompt": "prompt", "data.completion": "completion"}),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, {"data.prompt": "prompt", "data.completion": "completion"}),
    ],
)
def test_an_object_of_rows_and_one_of_splits_are_told_apart(row: dict[str, Any], wanted: dict[str, str]) -> None:
    columns = {column: [value] * 2 for column, value in row.items()}
    assert read({"one": row, "two": row}, wanted=wanted).columns == columns
    assert read({"train": columns, "test": columns}, wanted=wanted).columns == columns


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_an_object_per_line_is_read_whatever_the_file_is_called(end: str) -> None:
    found = read(end.join(map(json.dumps, RECORDS)) + end)
    assert found == Table(COLUMNS, notes=("a.json is read as an object per line.",))


def test_a_line_that_is_no_json_is_named_there_too() -> None:
    lines = [*map(json.dumps, RECORDS), '{"text": ']
    assert mistakes("\n".join(lines)).startswith("data.train: line 3 of a.json is not JSON")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"text": ["a"], "lable": ["b"]}, "data.label: must be a column of a.json, got 'label', did you mean 'lable'?"),
        ({"text": ["a", "b"], "label": [1]}, "must be equally long, 'text' has 2, 'label' has 1"),
        ({"text": "good"}, "data.train: a.json must hold a list of objects, or of columns, got an object with 'text'"),
        ({}, "got an object with no keys"),
        ("7", "must hold a list of objects, got int at its top"),
        ("null", "must hold a list of objects, got NoneType at its top"),
        ([[1]], "item 1 of a.json must be an object, got list"),
        ({"data": []}, "data.text: must be a column of a.json, got 'text' (columns: data)"),
        ({"x" * 500: 1}, "x..."),
    ],
)
def test_what_is_no_table_is_refused(value: Any, said: str) -> None:
    message = mistakes(value)
    assert said in message
    assert len(message) < 300
