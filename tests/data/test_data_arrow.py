"""parquet and the folders of save_to_disk: names of classes, dates, stored indices, splits."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_search.data import load_dataset
from lora_search.data.sources import read_table
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

NAMES = ["spam", "ham", "eggs"]
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})


def dataset(*labels: int) -> datasets.Dataset:
    texts = [f"text {number}" for number in range(len(labels))]
    return datasets.Dataset.from_dict({"text": texts, "label": list(labels)}, features=FEATURES)


def mistake_of(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        read_table(spec)
    return "\n".join(caught.value.mistakes)


def test_the_files_own_class_names_are_used_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    dataset(1, 0, 1, 0).to_parquet(path)
    loaded = load_dataset(DataSpec(train=str(path)), 0)
    assert loaded.label_names == ("spam", "ham"), "by number, less the class that does not occur"
    assert loaded.labels.tolist() == [1, 0, 1, 0]
    assert loaded.report.sentences() == ("4 examples of 2 labels: spam (2), ham (2).",)


def test_class_numbers_without_a_name_stay_numbers_and_minus_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    info = {"info": {"features": {"label": {"names": ["x"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 1, -1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)
    assert read_table(DataSpec(train=str(path))).labels == ("x", "1", "")


@pytest.mark.parametrize("metadata", ["no json", "[]", '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'])
def test_metadata_of_another_kind_is_passed_over(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, path)
    assert read_table(DataSpec(train=str(path))).labels == ("0", "1")


def test_dates_and_moments_may_be_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    days = [datetime.date(2026, 1, 2), datetime.date(2026, 1, 3), None]
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [0, 1, 1], "day": days})
    frame["moment"] = pd.to_datetime(["2026-01-02 03:04:05.000006007", "2026-01-03", None], format="mixed")
    frame.to_parquet(path)
    assert read_table(DataSpec(train=str(path), group="day")).groups == ("2026-01-02", "2026-01-03", "")
    moments = read_table(DataSpec(train=str(path), group="moment")).groups
    assert moments is not None
    assert moments[0].startswith("2026-01-02T03:04:05")
    assert moments[2] == ""
    assert "must hold strings or whole numbers, got datetime.date(2026, 1, 2)" in mistake_of(
        DataSpec(train=str(path), label="day")
    )


@pytest.mark.parametrize(
    "far",
    [
        pa.array([10**8, 0], pa.int32()).cast(pa.date32()),
        pa.array([9 * 10**18, 0], pa.timestamp("us")),
        pa.array([-(10**15), 0], pa.timestamp("s")),
    ],
)
def test_dates_that_python_does_not_know_are_told_with_their_column(tmp_path: Path, far: pa.Array) -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"], "day": far})
    pq.write_table(table, tmp_path / "a.parquet")
    datasets.Dataset(table).save_to_disk(tmp_path / "set")
    for source, name in (("a.parquet", "a.parquet"), ("set", "the dataset")):
        assert mistake_of(DataSpec(train=str(tmp_path / source), group="day")) == (
            f"data.group: column 'day' of {name} must hold dates and times that Python knows, years 1 to 9999, got"
            " others"
        )


def test_an_index_that_pandas_stored_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    index = pd.Index(["u", "u", "v"], name="user")
    pd.DataFrame({"text": ["a", "b", "c"], "label": [0, 1, 1]}, index=index).to_parquet(path)
    assert read_table(DataSpec(train=str(path), group="user")).groups == ("u", "u", "v")


def test_categories_decimals_and_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    labels = pa.array(["x", "y", "x"]).dictionary_encode()
    groups = pa.array([1, 2, 2], pa.decimal128(5, 2))
    pq.write_table(pa.table({"the.text": ["a", "b", "c"], "label": labels, "who": groups}), path)
    raw = read_table(DataSpec(train=str(path), text="the.text", group="who"))
    assert (raw.texts, raw.labels, raw.groups) == (("a", "b", "c"), ("x", "y", "x"), ("1", "2", "2"))


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["good"], ["fine"], ["a"]], names=["text", "text", "label"]), path)
    assert mistake_of(DataSpec(train=str(path))) == (
        "data.text: must be one column of a.parquet, got 'text', the name of 2"
    )


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    dataset(1, 0, -1).save_to_disk(tmp_path / "set")
    raw = read_table(DataSpec(train=str(tmp_path / "set")))
    assert raw.labels == ("ham", "spam", "")
    assert raw.label_names == tuple(NAMES)
    assert mistake_of(DataSpec(train=str(tmp_path / "set"), split="test")) == (
        "data.split: must be left out where set has no splits, got 'test'"
    )


@pytest.mark.parametrize("columns", [None, ["label"], ["text"]])
@pytest.mark.parametrize("kind", ["numpy", "torch", "pandas", "arrow"])
def test_a_folder_keeps_no_format_of_its_makers(tmp_path: Path, kind: str, columns: list[str] | None) -> None:
    made = dataset(1, 0, -1)
    made.set_format(kind, columns=columns)
    made.save_to_disk(tmp_path / "set")
    raw = read_table(DataSpec(train=str(tmp_path / "set")))
    assert (raw.texts, raw.labels) == (("text 0", "text 1", "text 2"), ("ham", "spam", ""))


def test_the_split_of_a_dataset_dict(tmp_path: Path) -> None:
    datasets.DatasetDict(train=dataset(0, 1), test=dataset(2, 2, 2)).save_to_disk(tmp_path / "all")
    assert read_table(DataSpec(train=str(tmp_path / "all"))).labels == ("spam", "ham")
    assert read_table(DataSpec(train=str(tmp_path / "all"), split="test")).labels == ("eggs",) * 3
    assert read_table(DataSpec(train=str(tmp_path / "all" / "test"))).labels == ("eggs",) * 3
    assert mistake_of(DataSpec(train=str(tmp_path / "all"), split="dev")) == (
        "data.split: must be one of 'train', 'test' in all, got 'dev'"
    )


def test_the_only_split_needs_no_naming(tmp_path: Path) -> None:
    datasets.DatasetDict(validation=dataset(0, 1)).save_to_disk(tmp_path / "one")
    assert read_table(DataSpec(train=str(tmp_path / "one"))).labels == ("spam", "ham")


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_folder_is_told_in_one_line(tmp_path: Path, file: str) -> None:
    dataset(0, 1).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / file).write_text("{")
    message = mistake_of(DataSpec(train=str(tmp_path / "set")))
    assert message.startswith("data.train: ")
    assert "cannot be read as a folder of save_to_disk: " in message
    assert "\n" not in message


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert mistake_of(DataSpec(train=str(tmp_path / "plain"))).endswith(
        "or a folder that save_to_disk of datasets wrote, got a folder"
    )
