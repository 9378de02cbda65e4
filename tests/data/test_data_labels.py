"""Labels: their order, the ones that look alike, columns that hold no classes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data import load_dataset
from lora_search.data.labels import in_order, lookalikes, mistake_of_many, plain_form
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec


@pytest.mark.parametrize(
    ("labels", "stored", "ordered"),
    [
        (["10", "2", "1"], (), ("1", "2", "10")),
        (["1.5", "-2", "10", "+3"], (), ("-2", "1.5", "+3", "10")),
        (["10", "2", "x"], (), ("10", "2", "x")),
        (["b", "a", "b"], (), ("a", "b")),
        (["ham", "spam"], ("spam", "eggs", "ham"), ("spam", "ham")),
        (["ham", "10", "9"], ("ham",), ("ham", "9", "10")),
    ],
)
def test_the_order_of_classes(labels: list[str], stored: tuple[str, ...], ordered: tuple[str, ...]) -> None:
    assert in_order(labels, stored) == ordered


@pytest.mark.parametrize(
    "other",
    [
        "pos ",
        " pos",
        "Pos",
        "POS",
        "pos\u00a0",
        "pos\u200b",
        "\ufeffpos",
        "p\u00ados",
        "ｐｏｓ",
        "pos\ufe0f",
        "p os",
        "pos\x00",
    ],
)
def test_labels_that_look_alike(other: str) -> None:
    assert lookalikes({"pos": 5, other: 7, "neg": 3}) == ((other, "pos"),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "01"),
        ("-0", "0"),
        ("2.50", "2.5"),
        ("+1", "1"),
        ("1", "１"),
        ("100", "100.0"),
        ("1234567890123456780", "1234567890123456780.0"),
    ],
)
def test_numbers_that_look_alike(one: str, other: str) -> None:
    assert plain_form(one) == plain_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "10"),
        ("1.0", "1.01"),
        ("yes", "no"),
        ("-1", "1"),
        ("a-b", "ab"),
        ("ä", "a"),
        ("1234567890123456780", "1234567890123456781"),
        ("9" * 299, "9" * 300),
        ("1e400", "inf"),
        ("0", "nan"),
    ],
)
def test_labels_that_do_not(one: str, other: str) -> None:
    assert plain_form(one) != plain_form(other)


def test_letters_composed_and_decomposed_look_alike() -> None:
    assert plain_form("gr\u00f6\u00dfer") == plain_form("gro\u0308sser")


@given(label=st.text())
def test_a_plain_form_has_itself_for_a_plain_form(label: str) -> None:
    assert plain_form(plain_form(label)) == plain_form(label)


def test_what_cannot_be_seen_has_none() -> None:
    assert plain_form("\u200b \u2060\u00a0\u3164") == ""


def write(path: Path, labels: list[str]) -> DataSpec:
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": label}) + "\n" for n, label in enumerate(labels)))
    return DataSpec(train=str(path))


def test_lookalikes_are_told_with_their_counts(tmp_path: Path) -> None:
    labels = ["neg"] * 10 + ["pos"] * 5 + ["pos\u200b"] * 3 + ["Pos"] * 2 + ["NEG "]
    report = load_dataset(write(tmp_path / "a.jsonl", labels), 0).report
    assert report.sentences()[-1] == (
        "Warning: labels that differ only in case, spaces, invisible characters or the way a number is written are"
        " labels of their own: 'neg' (10), 'NEG ' (1); 'pos' (5), 'pos\\u200b' (3), 'Pos' (2). If they mean the same,"
        " make them one in the data."
    )


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "<NA>", "NA", "N/A", "#N/A", "n/a", "null"])
def test_a_label_that_is_written_where_there_is_none_is_told(tmp_path: Path, missing: str) -> None:
    spec = write(tmp_path / "a.jsonl", ["a", "b", missing] * 4)
    assert load_dataset(spec, 0).report.warnings() == (
        f"Warning: '{missing}' (4) is a label here, though it is often written where there is none; if so, name it in"
        " data.drop_labels.",
    )
    dropped = DataSpec(train=spec.train, drop_labels=(missing,))
    assert load_dataset(dropped, 0).report.warnings() == ()
    assert load_dataset(write(tmp_path / "b.jsonl", ["a", "none", "other"] * 4), 0).report.warnings() == ()


def test_groups_and_texts_that_are_written_where_there_is_none_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "reply": "nan in it", "label": "ab"[n % 2], "who": f"{n}"} for n in range(12)]
    rows[3] |= {"text": " NA ", "who": "nan"}
    rows[4] |= {"reply": "nan", "who": "nan"}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    report = load_dataset(DataSpec(train=str(tmp_path / "a.json"), text_pair="reply", group="who"), 0).report
    assert report.warnings() == (
        "Warning: 'nan' (2) is a group here, though it is often written where there is none; if so, give each of"
        " its rows a group of its own.",
        "Warning: ' NA ' (1) and 'nan' (1) is all of a text here, though it is often written where there is none; if"
        " so, leave these rows out of the data.",
    )


def test_groups_that_look_alike_are_told(tmp_path: Path) -> None:
    groups = ["Anna", "anna ", "ANNA", "12", "12.0", "Bob"]
    rows = ({"text": f"t{n}", "label": "ab"[n % 2], "who": group} for n, group in enumerate(groups * 2))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load_dataset(DataSpec(train=str(tmp_path / "a.jsonl"), group="who"), 0)
    assert len(set(dataset.groups.tolist())) == 6
    assert dataset.report.warnings() == (
        "Warning: groups that differ only in case, spaces, invisible characters or the way a number is written are"
        " groups of their own, and may be in different folds: 'ANNA', 'Anna', 'anna '; '12', '12.0'. If they mean the"
        " same, make them one in the data.",
    )


def test_a_label_for_every_row_is_one_mistake(tmp_path: Path) -> None:
    draw = random.Random(0)
    scores = [f"{draw.uniform(0, 5):.3f}" for _ in range(200)]
    with pytest.raises(DataError) as caught:
        load_dataset(write(tmp_path / "a.jsonl", scores), 0)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("data.label: must name classes, each of several rows, got 19")
    assert mistake.endswith("is it a regression target, or are data.text and data.label swapped?")
    assert len(mistake) < 300


def test_texts_for_labels_are_cut_in_the_mistake() -> None:
    mistake = mistake_of_many({f"{number} " + "word " * 500: 1 for number in range(50)}, "label")
    assert mistake is not None
    assert len(str(mistake)) < 400


@pytest.mark.parametrize("counts", [{str(n): 2 for n in range(100)}, {str(n): 1 for n in range(9)}, {"a": 90, "b": 1}])
def test_many_classes_are_classes(counts: dict[str, int]) -> None:
    assert mistake_of_many(counts, "label") is None


def test_a_label_that_cannot_be_seen_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(write(tmp_path / "a.jsonl", ["a", "b", "\u200b", "a"]), 0)
    assert caught.value.mistakes == ("data.label: column 'label' must be filled in, got missing labels in data row 3",)
