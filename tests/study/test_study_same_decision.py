"""The benchmark of whole decisions: what it samples of the naive loop, and what that comes to in full."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pandas as pd
import pytest
from experiment_scripts import EXPERIMENTS, benchmark_module


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS / "benchmarks"))
        yield benchmark_module("same_decision")


@pytest.fixture
def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": [2, 0, 1, 3],
            "targets": ["attention", "query+value", "query+value", "query+value"],
            "layers": ["all", "all", "all", "top-1/3"],
        }
    )


def test_every_planned_cell_is_in_one_class(benchmark: ModuleType, trials: pd.DataFrame) -> None:
    classes = benchmark.classes_of(trials, folds=3, repeats=2)
    assert {name: sorted({key.trial for key in keys}) for name, keys in classes.items()} == {
        "query+value, all": [0, 1],
        "attention, all": [2],
        "query+value, top-1/3": [3],
    }
    assert len({key for keys in classes.values() for key in keys}) == 4 * 3 * 2


def test_a_sample_is_of_different_trials_and_folds(benchmark: ModuleType, trials: pd.DataFrame) -> None:
    keys = benchmark.classes_of(trials, folds=3, repeats=1)["query+value, all"]
    (first,), (second,) = benchmark.sample_of(keys, 1, 0), benchmark.sample_of(keys, 1, 1)
    assert first.trial != second.trial
    assert first.fold != second.fold
    assert benchmark.sample_of(keys, 2, 0) == [first, second]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_samples_one_after_another_reach_every_cell_once(
    benchmark: ModuleType, trials: pd.DataFrame, size: int
) -> None:
    keys = benchmark.classes_of(trials, folds=3, repeats=1)["query+value, all"]
    sampled = [key for number in range(6 // size) for key in benchmark.sample_of(keys, size, number)]
    assert sorted(sampled) == sorted(keys)


def test_a_sample_larger_than_its_class_is_the_class(benchmark: ModuleType, trials: pd.DataFrame) -> None:
    keys = benchmark.classes_of(trials, folds=3, repeats=1)["attention, all"]
    assert sorted(benchmark.sample_of(keys, 7, 1)) == sorted(keys)


def test_unsampled_cells_count_as_the_mean_of_their_class(benchmark: ModuleType) -> None:
    full = benchmark.extrapolate({"all": 6, "top": 3}, {"all": [10.0, 20.0], "top": [4.0]})
    assert full["seconds"] == pytest.approx(6 * 15.0 + 3 * 4.0)
    assert (full["cells"], full["sampled_cells"]) == (9, 3)
    assert full["classes"]["all"] == {
        "cells": 6,
        "sampled_cells": 2,
        "seconds_per_cell": pytest.approx(15.0),
        "seconds": pytest.approx(90.0),
    }


def test_all_cells_sampled_is_their_sum(benchmark: ModuleType) -> None:
    assert benchmark.extrapolate({"all": 3}, {"all": [1.0, 2.0, 6.0]})["seconds"] == pytest.approx(9.0)


@pytest.mark.parametrize("seconds", [[], [1.0, 1.0, 1.0]])
def test_a_class_must_be_sampled_within_its_cells(benchmark: ModuleType, seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="all: must have 1 to 2 sampled cells, got"):
        benchmark.extrapolate({"all": 2}, {"all": seconds})
