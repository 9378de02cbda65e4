"""The hold-out audit: its paired comparison, by hand."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from experiment_scripts import audit_module


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return audit_module("holdout")


def test_the_difference_of_single_texts_has_the_paired_standard_error(audit: ModuleType) -> None:
    first = np.array([True, True, False, True, True])
    second = np.array([True, False, True, False, True])
    difference, error = audit.paired_difference(first, second, np.arange(5))
    assert difference == pytest.approx(0.2)
    differences = np.array([0, 1, -1, 1, 0])
    assert error == pytest.approx(differences.std(ddof=1) / np.sqrt(5))


def test_copies_of_a_text_are_no_further_evidence(audit: ModuleType) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 40)) < 0.7
    alone = audit.paired_difference(first, second, np.arange(40))
    copied = audit.paired_difference(np.repeat(first, 3), np.repeat(second, 3), np.repeat(np.arange(40), 3))
    assert copied == pytest.approx(alone)


def test_equal_predictions_differ_by_nothing(audit: ModuleType) -> None:
    right = np.array([True, False, True])
    assert audit.paired_difference(right, right, np.arange(3)) == (0.0, 0.0)
