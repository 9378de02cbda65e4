"""Sources: every format gives the same strings; every mistake names its place."""

import bz2
import codecs
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.sources import read_table
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

# what loses its meaning when a reader guesses types, or its shape when it guesses quotes
TRICKY = (
    "NA",
    "null",
    "nan",
    "123",
    "1e5",
    "True",
    'said "no", then',
    "two\nlines",
    "tab\there",
    "ünïcode 🙂",
    " padded ",
)
LABELS = ("NA", "null", "01", "1.0", "None", "yes", "NA", "null", "01", "1.0", "None")


def as_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(path, index=False)


def as_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(path, index=False, sep="\t")


def as_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows))


def as_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_parquet(path)


WRITERS: dict[str, Callable[[Path, Sequence[dict[str, Any]]], None]] = {
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".json": as_json,
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
}


def mistakes_of(spec: DataSpec) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read_table(spec)
    return caught.value.mistakes


def mistake_of(spec: DataSpec) -> str:
    (mistake,) = mistakes_of(spec)
    return mistake


@pytest.mark.parametrize("compress", [None, gzip, bz2])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_keeps_strings_as_they_are(tmp_path: Path, suffix: str, compress: Any) -> None:
    texts = tuple(text for text in TRICKY if suffix != ".tsv" or "\n" not in text)
    plain = tmp_path / f"train{suffix}"
    WRITERS[suffix](plain, [{"text": text, "label": label} for text, label in zip(texts, LABELS, strict=False)])
    path = plain
    if compress:
        path = tmp_path / f"train{suffix}{'.gz' if compress is gzip else '.bz2'}"
        path.write_bytes(compress.compress(plain.read_bytes()))
    raw = read_table(DataSpec(train=str(path)))
    assert raw.texts == texts
    assert raw.labels == LABELS[: len(texts)]
    assert raw.pairs is None
    assert raw.groups is None
    assert raw.rows == tuple(range(1, len(texts) + 1))


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1)
)
def test_any_text_survives_jsonl(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "train.jsonl"
    as_jsonl(path, [{"text": text, "label": "a"} for text in texts])
    assert read_table(DataSpec(train=str(path))).texts == tuple(texts)


@pytest.mark.parametrize("suffix", WRITERS)
def test_whole_number_labels_become_their_decimals(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    WRITERS[suffix](path, [{"text": "good", "label": 1}, {"text": "bad", "label": 0}])
    assert read_table(DataSpec(train=str(path))).labels == ("1", "0")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_missing_values_are_blank_and_do_not_turn_labels_into_floats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    WRITERS[suffix](path, [{"text": "good", "label": 1}, {"text": None, "label": None}, {"text": "bad", "label": 0}])
    raw = read_table(DataSpec(train=str(path)))
    assert raw.labels == ("1", "", "0")
    assert raw.texts == ("good", "", "bad")


def test_pairs_and_groups_are_read_from_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"premise": "p", "hypothesis": "h", "gold": True, "document": 7}])
    spec = DataSpec(train=str(path), text="premise", text_pair="hypothesis", label="gold", group="document")
    raw = read_table(spec)
    assert (raw.texts, raw.pairs, raw.labels, raw.groups) == (("p",), ("h",), ("True",), ("7",))


def test_blank_lines_of_jsonl_and_byte_order_marks_are_no_rows(tmp_path: Path) -> None:
    jsonl, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    jsonl.write_text('\ufeff{"text": "good", "label": "a"}\n\n{"text": "bad", "label": "b"}\n\n')
    table.write_text("\ufefftext,label\r\ngood,a\r\nbad,b\r\n")
    assert read_table(DataSpec(train=str(jsonl))).texts == ("good", "bad")
    assert read_table(DataSpec(train=str(table))).texts == ("good", "bad")


def test_csv_text_beyond_the_csv_modules_field_limit(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    as_csv(path, [{"text": "word " * 60_000, "label": "a"}])
    assert read_table(DataSpec(train=str(path))).texts == ("word " * 60_000,)


@pytest.mark.parametrize("suffix", WRITERS)
def test_wrong_columns_are_all_named_with_what_there_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    WRITERS[suffix](path, [{"Text": "good", "category": "a"}])
    assert mistakes_of(DataSpec(train=str(path))) == (
        f"data.text: must be a column of train{suffix}, got 'text', did you mean 'Text'? (columns: Text, category)",
        f"data.label: must be a column of train{suffix}, got 'label' (columns: Text, category)",
    )


def test_many_or_long_columns_are_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"x" * 100: 1} | {f"c{number}": 1 for number in range(29)}])
    mistake = mistakes_of(DataSpec(train=str(path)))[0]
    assert f"{'x' * 37}..., c0, c1, " in mistake
    assert mistake.endswith("c18 and 10 more)")


@pytest.mark.parametrize("name", ["train.txt", "train", "train.gz", "train.csv.tar", "folder.csv"])
def test_unknown_formats_are_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder.csv" else path.touch()
    got = "a folder" if name == "folder.csv" else repr(name)
    assert mistake_of(DataSpec(train=str(path))) == (
        "data.train: must be a file ending in .csv, .tsv, .json, .jsonl, .parquet (or one of these and .gz, .bz2, .xz, "
        f".zst or .zip), or a folder that save_to_disk of datasets wrote, got {got}"
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "a.csv must hold a header and rows, got an empty file"),
        ("a.csv", b"text,label\ngood,a\nbad,b,c\n", "at most the 2 fields of its header, got 3 in line 3; "),
        ("a.csv", b"text,label\ngood,a,x\nbad,b,c\n", "got 3 in line 2, and more than 2 in 1 other; "),
        (
            "a.csv",
            b"text;label\ngood, very;a\n",
            "must have its columns separated by commas, got the header 'text;label'",
        ),
        ("a.csv", b"text\tlabel\ngood\ta\n", "must have its columns separated by commas, got the header"),
        ("a.tsv", b"text,label\ngood,a\n", "must have its columns separated by tabs, got the header 'text,label'"),
        ("a.csv", b"text\ngood\n", "data.label: must be a column of a.csv, got 'label' (columns: text)"),
        ("a.csv", b'text,label\n"never closed,a\nbad,b\n', "got one in line 2 that is never closed"),
        ("a.csv", b"text,label\ncaf\xe9,a\n", "must be UTF-8 text"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "must be UTF-8 text"),
        ("a.csv", "text,label\ngood,a\n".encode("utf-16"), "position 0; it looks like UTF-16"),
        ("a.csv", "text,label\ngood,a\n".encode("utf-32"), "position 0; it looks like UTF-32"),
        ("a.csv", codecs.BOM_UTF32_BE + "text,label\n".encode("utf-32-be"), "position 2; it looks like UTF-32"),
        ("a.json", b'{"text": "good"}', "must hold a list of objects, or of columns, got an object with 'text'"),
        ("a.json", b'{"text": "good"} {"text": "bad"}', "one object per line is .jsonl"),
        ("a.json", b"[1]", "item 1 of a.json must be an object, got int"),
        ("a.jsonl", b'{"text": "good", "label": "a"}\n{"text": \n', "line 2 of a.jsonl is not JSON"),
        ("a.jsonl", b'\n["good", "a"]\n', "line 2 of a.jsonl must be an object, got list; a list of objects is .json"),
        (
            "a.jsonl",
            b'[\n{"text": "good"}\n]\n',
            "line 1 of a.jsonl is not JSON: Expecting value; a list of",
        ),
        ("a.json", b"[" * 100_000, "a.json must hold flat objects, got values nested too deeply to read"),
        ("a.jsonl", b'{"a":' * 100_000, "line 1 of a.jsonl must hold flat objects, got values nested too deeply"),
        ("a.json", b"[" + b"1" * 9999 + b"]", "a.json must hold plain values, got a number of thousands of digits"),
        ("a.parquet", b"PAR1 but not really", "a.parquet cannot be read as parquet: "),
        ("a.csv.gz", b"text,label\n", "cannot be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text,label\ngood,a\n" * 100, mtime=0)[:-20], "cannot be read"),
        ("a.csv.bz2", b"text,label\n", "cannot be read: Invalid data stream"),
        ("a.csv", b"text,label\n", "must hold examples, got no rows"),
        ("a.json", b"[]", "data.text: must be a column of a.json, got 'text' (columns: none)"),
    ],
)
def test_damaged_files_are_named_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in "\n".join(mistakes_of(DataSpec(train=str(tmp_path / name))))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1984, "1984 (int)"),
        (True, "True (bool)"),
        (["a"], "['a'] (list)"),
        (["a"] * 1000, "list of 1000 values (list)"),
        ({"a": "b" * 1000}, f"{{'a': '{'b' * 70}... (dict)"),
        ("\ud800", "text that is not valid Unicode"),
    ],
)
def test_texts_that_are_none_are_refused_with_their_rows(tmp_path: Path, value: Any, shown: str) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"text": "good", "label": "a"}, *[{"text": value, "label": "b"}] * 7])
    assert mistake_of(DataSpec(train=str(path))) == (
        f"data.text: column 'text' must hold strings, got {shown} in 7 data rows (2, 3, 4, 5, 6, ...)"
    )


def test_labels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"text": "good", "label": 0.75}, {"text": "bad", "label": 1.0}])
    assert mistake_of(DataSpec(train=str(path))) == (
        "data.label: column 'label' must hold strings or whole numbers, got 0.75 (float) in data row 1"
    )


def test_the_label_is_not_what_the_model_reads(tmp_path: Path) -> None:
    assert mistake_of(DataSpec(train=str(tmp_path), text="a", label="a")) == (
        "data.label: must not be the column the model reads (data.text), got 'a'"
    )


def test_a_config_means_nothing_outside_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"text": "good", "label": "a"}])
    assert mistake_of(DataSpec(train=str(path), config="plain")) == (
        "data.config: must be left out unless data.train is hub:OWNER/NAME, got 'plain'"
    )


def test_a_split_means_nothing_outside_the_hub_either(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    as_jsonl(path, [{"text": "good", "label": "a"}])
    assert mistakes_of(DataSpec(train=str(path), config="plain", split="validation")) == (
        "data.config: must be left out unless data.train is hub:OWNER/NAME, got 'plain'",
        "data.split: must be left out unless data.train has splits (hub:OWNER/NAME, a folder of save_to_disk, or .json"
        " with a table per split), got 'validation'",
    )
    # written out with the other defaults in the file of a study, it says nothing
    assert read_table(DataSpec(train=str(path), split="train")).texts == ("good",)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_column_that_is_there_twice_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = pd.DataFrame([("good", "fine", "a", 1, 2)], columns=["text", "text", "label", "rest", "rest"])
    frame.to_csv(path, index=False, sep="\t" if name == "a.tsv" else ",")
    assert mistake_of(DataSpec(train=str(path))) == (
        f"data.text: must be one column of {name}, got 'text', the name of 2"
    )


def test_columns_nobody_asks_for_may_share_a_name_or_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",text,label,x,x\n0,good,a,1,2\n1,bad,b\n")
    raw = read_table(DataSpec(train=str(path)))
    assert (raw.texts, raw.labels) == (("good", "bad"), ("a", "b"))
    assert "(columns: '', text, label, x, x)" in mistake_of(DataSpec(train=str(path), text="words"))


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    assert "data.train: must be an existing file" in mistake_of(DataSpec(train=str(tmp_path / "none.csv")))
