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


def test_a_refit_is_judged_on_the_half_that_did_not_choose_it(audit: ModuleType) -> None:
    lucky_here = audit.Refitted(0, 10, "complete", 0.01, 1, np.array([True, False] * 4))
    lucky_there = audit.Refitted(1, 10, "complete", 0.01, 1, np.array([False, True] * 4))
    # each is right on one half of the texts alone: what a half chooses is wrong on all of the other
    assert not audit.highest_by_the_other_half([lucky_here, lucky_there], np.arange(8)).any()
    assert audit.best_of_each([lucky_here, lucky_there]) == {0: lucky_here, 1: lucky_there}


def test_what_is_best_everywhere_is_the_highest_by_either_half(audit: ModuleType) -> None:
    good = audit.Refitted(0, 10, "complete", 0.01, 1, np.array([True, True, True, False]))
    poor = audit.Refitted(0, 10, "complete", 0.02, 1, np.array([True, False, False, False]))
    assert (audit.highest_by_the_other_half([poor, good], np.arange(4)) == good.right).all()
    assert audit.best_of_each([poor, good]) == {0: good}
