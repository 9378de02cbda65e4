"""Cleaning and sampling: mistakes are named with their rows, samples keep the labels' shares."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.examples import clean, sample
from lora_search.data.sources import RawExamples
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

SPEC = DataSpec(train="train.csv")


def raw(
    texts: list[str], labels: list[str], pairs: list[str] | None = None, groups: list[str] | None = None
) -> RawExamples:
    return RawExamples(
        tuple(texts),
        None if pairs is None else tuple(pairs),
        tuple(labels),
        None if groups is None else tuple(groups),
        tuple(range(1, len(texts) + 1)),
    )


def labelled(labels: list[str]) -> RawExamples:
    return raw([f"text {number}" for number in range(len(labels))], labels)


def mistakes_of(examples: RawExamples, spec: DataSpec = SPEC) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        clean(examples, spec)
    return caught.value.mistakes


def test_clean_data_passes_untouched() -> None:
    examples = raw(["NA", "null"], ["NA", "null"], pairs=["0", "None"], groups=["1", "1"])
    assert clean(examples, SPEC) == examples


def test_dropped_labels_take_their_rows_and_their_mistakes_along() -> None:
    examples = raw(["a", "", "b", "c"], ["x", "plot", "y", "plot"])
    kept = clean(examples, SPEC.model_copy(update={"drop_labels": ("plot",)}))
    assert kept.texts == ("a", "b")
    assert kept.labels == ("x", "y")
    assert kept.rows == (1, 3)


def test_every_mistake_is_reported_at_once_with_data_row_numbers() -> None:
    spec = DataSpec(train="t.csv", text="quote", text_pair="reply", label="kind", group="film", drop_labels=("plt",))
    examples = raw(
        texts=["a", "", " \t", "b", "", "", "", ""],
        labels=["x", "y", "", "plot", "x", "x", "x", "x"],
        pairs=["a", "a", "a", "", "a", "a", "a", "a"],
        groups=["f", "f", "f", "f", "f", "f", "f", ""],
    )
    assert mistakes_of(examples, spec) == (
        "data.drop_labels: must name labels of the data, got 'plt', did you mean 'plot'? "
        "(labels: plot (1), x (5), y (1))",
        "data.label: column 'kind' must be filled in, got missing labels in data row 3",
        "data.text: column 'quote' must be filled in, got empty texts in 6 data rows (2, 3, 5, 6, 7, ...)",
        "data.text_pair: column 'reply' must be filled in, got empty texts in data row 4",
        "data.group: column 'film' must be filled in, got missing groups in data row 8",
    )


def test_a_missing_label_cannot_be_dropped_by_naming_nothing() -> None:
    mistakes = mistakes_of(labelled(["a", "b", ""]), SPEC.model_copy(update={"drop_labels": ("",)}))
    assert mistakes[0] == "data.drop_labels: must name labels of the data, got '' (labels: a (1), b (1))"


def test_one_class_is_no_task() -> None:
    assert mistakes_of(labelled(["x"] * 3)) == (
        "data.label: must have two labels or more in column 'label', got x (3)",
    )
    dropped = mistakes_of(labelled(["x", "x", "y"]), SPEC.model_copy(update={"drop_labels": ("y",)}))
    assert dropped == ("data.label: must have two labels or more in column 'label', got x (2) after data.drop_labels",)


LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=6, max_size=200).filter(lambda all_: len(set(all_)) > 1)


@given(labels=LABELS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_sample_has_its_size_and_the_labels_shares(labels: list[str], seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(4, len(labels) - 1))
    examples = labelled(labels)
    try:
        taken = sample(examples, size, seed)
    except DataError:
        rarest = min(Counter(labels).values())
        assert rarest * size < len(labels), "only a label with a share below one example may be lost"
        return
    assert len(taken) == size
    assert list(taken.rows) == sorted(set(taken.rows)), "each row once, in the source's order"
    assert all(taken.texts[at] == examples.texts[row - 1] for at, row in enumerate(taken.rows))
    for label, count in Counter(labels).items():
        assert abs(Counter(taken.labels)[label] - count * size / len(labels)) < 1
    assert sample(examples, size, seed) == taken


def test_samples_differ_by_seed_and_grow_without_losing_what_they_had() -> None:
    examples = labelled(["a", "b"] * 100)
    small, large, other = sample(examples, 20, 0), sample(examples, 40, 0), sample(examples, 20, 1)
    assert set(small.rows) < set(large.rows)
    assert set(small.rows) != set(other.rows)


def test_a_label_too_rare_for_the_sample_is_named() -> None:
    with pytest.raises(DataError) as caught:
        sample(labelled(["a"] * 60 + ["b"] * 40 + ["rare"]), 10, 0)
    assert caught.value.mistakes == (
        "data.max_examples: must leave an example of every label, got 10, which leaves none of 'rare' (1 of 101); "
        "raise it, or name the label in data.drop_labels",
    )
