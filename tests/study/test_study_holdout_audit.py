"""The hold-out audit: its paired comparison, by hand."""

from __future__ import annotations

from types import ModuleType
from typing import Any

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


def refitted(audit: ModuleType, right: list[bool], **wanted: Any) -> Any:
    return audit.Refitted(audit.Wanted(**wanted), 10, "complete", 0.01, 1, np.array(right))


def test_adapters_trained_again_are_compared_draw_by_draw(audit: ModuleType) -> None:
    first = [refitted(audit, [True, True], trial=0, draw=1), refitted(audit, [True, False], trial=0, draw=2)]
    second = [refitted(audit, [True, False], trial=1, draw=draw) for draw in (1, 2, 3)]
    found = audit.trained_again(first, second, 0.3)
    # the third draw of the first diverged
    assert (found["recommended"], found["highest"]) == ([1.0, 0.5], [0.5, 0.5])
    assert found["difference"] == found["standard_error"] == pytest.approx(0.25)
    assert found["within_margin"]
    assert not audit.trained_again(second, first, 0.2)["within_margin"]


def test_an_adapter_has_the_best_of_its_rates(audit: ModuleType) -> None:
    poor = refitted(audit, [True, False], trial=0, factor=2.0)
    good = refitted(audit, [True, True], trial=0)
    other = refitted(audit, [False, False], trial=1)
    assert audit.best_of_each([poor, other, good]) == [good, other]
