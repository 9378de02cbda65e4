"""The rule of thumb: bits of the answers against room in an adapter."""

from types import SimpleNamespace

import numpy as np
import pytest

from lora_search.data import EncodedExamples
from lora_search.data.report import DataReport
from lora_search.study.capacity import information, rule_of_thumb


@pytest.mark.parametrize(
    ("smallest", "largest", "said"),
    [
        (500, 9000, "the smallest adapter has as many, so room is no reason for a larger one"),
        (100, 9000, "smaller adapters may have no room for all of it"),
        (100, 499, "the largest adapter has fewer, so larger ones than are searched may score higher"),
    ],
)
def test_what_is_said(smallest, largest, said):
    found = rule_of_thumb(1000.0, smallest, largest)
    assert found == f"the answers hold at most 1,000 bits, a parameter about 2, so 500 parameters have room: {said}"


def test_numbers_hold_as_many_bits_as_they_are_exact_and_labels_add_up(world_of):
    assert information(world_of("regression", answers=np.arange(8.0))) is None
    members = np.tile(np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=np.uint8), (2, 1))
    assert information(world_of("multi-label-classification", answers=members)) == pytest.approx(2 * 8)
    assert information(world_of("text-classification")) == pytest.approx(8)


@pytest.fixture
def world_of():
    """An experiment of eight examples, as far as the rule looks at it."""

    def made(task, answers=None):
        report = DataReport("toy", 8, {}, None, {"no": 4, "yes": 4}, None, None, 0, 0, ())
        ids = tuple(np.array([1, 2]) for _ in range(8))
        lengths, labels = np.full(8, 2), np.arange(8) % 2
        data = EncodedExamples(ids, None, labels, ("no", "yes"), lengths, np.arange(8), report, "toy", answers=answers)
        return SimpleNamespace(
            experiment=SimpleNamespace(model=SimpleNamespace(task=task)),
            data=data,
            splits=SimpleNamespace(development=np.arange(8)),
            base=SimpleNamespace(head=SimpleNamespace(frozen=False)),
        )

    return made
