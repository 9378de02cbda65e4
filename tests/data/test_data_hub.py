"""The hub: class labels by name, and every failure in words the user can act on."""

from typing import Any

import datasets
import pytest

from lora_search.data.sources import read_table
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec


def spec(**more: Any) -> DataSpec:
    return DataSpec(train="hub:owner/reviews", **more)


def mistake_of(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        read_table(spec)
    return "\n".join(caught.value.mistakes)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A hub with one dataset; returns the list of what was asked of it."""
    asked: list[tuple[Any, ...]] = []
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "id": datasets.Value("int64"),
        }
    )
    table = datasets.Dataset.from_dict(
        {"text": ["NA", "good", None], "label": [0, 1, -1], "id": [7, 7, 8]}, features=features
    )

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_class_labels_are_read_by_name_and_unlabelled_rows_are_blank(hub: list[tuple[Any, ...]]) -> None:
    raw = read_table(spec(config="plain", split="validation", group="id"))
    assert hub == [("owner/reviews", "plain", "validation")]
    assert raw.texts == ("NA", "good", "")
    assert raw.labels == ("neg", "pos", "")
    assert raw.groups == ("7", "7", "8")


@pytest.mark.usefixtures("hub")
def test_wrong_column_of_a_hub_dataset() -> None:
    assert mistake_of(spec(label="labels")) == (
        "data.label: must be a column of hub:owner/reviews, got 'labels', did you mean 'label'? "
        "(columns: text, label, id)"
    )


def test_no_network_says_what_to_do() -> None:
    mistake = mistake_of(spec())
    assert mistake.startswith(
        "data.train: 'hub:owner/reviews' cannot be reached and is not in the local cache (HF_HUB_OFF"
    )
    assert mistake.endswith("load it once while online, or save it as csv, jsonl or parquet and give that file's path")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'owner/reviews' is a gated dataset on the Hub.\nLog in."),
            "data.train: must be a dataset of the hub that you may read, got 'hub:owner/reviews': "
            "Dataset 'owner/reviews' is a gated dataset on the Hub.",
        ),
        (
            ValueError("Unknown split \"trian\". Should be one of ['train']."),
            "data.train: 'hub:owner/reviews' cannot be loaded (config 'plain', split 'trian'): "
            "Unknown split \"trian\". Should be one of ['train'].",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts are no longer supported"),
        (datasets.exceptions.DatasetGenerationError(), "(config 'plain', split 'trian'): DatasetGenerationError"),
    ],
)
def test_the_librarys_errors_are_translated(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert said in mistake_of(spec(config="plain", split="trian"))
