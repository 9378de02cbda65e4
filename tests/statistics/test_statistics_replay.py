"""The replay audit: which cells of a recorded grid count, and that a race over them is held against all of them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from experiment_scripts import audit_module

from lora_search.statistics import Question

TRIALS, REPEATS, FOLDS = 12, 3, 4


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return audit_module("replay")


def grid(winner: int = 7, noise: float = 0.002) -> pd.DataFrame:
    """A grid of which one configuration is five points better than all others."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "trial": trial,
            "adapter_parameters": 100 * (TRIALS - trial),  # largest first, unlike the table
            "repeat": repeat,
            "fold": fold,
            "state": "complete",
            "score": 0.7 + 0.05 * (trial == winner) + noise * rng.standard_normal(),
        }
        for trial in range(TRIALS)
        for repeat in range(REPEATS)
        for fold in range(FOLDS)
    )


def test_configurations_are_sorted_by_size(audit: ModuleType) -> None:
    scores, parameters, folds = audit.grid_table(grid(winner=7))
    assert scores.shape == (TRIALS, REPEATS * FOLDS)
    assert folds == FOLDS
    assert (np.diff(parameters) > 0).all()
    assert scores.mean(axis=1).argmax() == TRIALS - 1 - 7


def test_only_complete_repeats_count(audit: ModuleType) -> None:
    cells = grid()
    cut_short = cells[(cells["repeat"] < 2) | (cells["fold"] < 2) | (cells["trial"] < 3)]
    whole, _, _ = audit.grid_table(cells[cells["repeat"] < 2])
    scores, _, folds = audit.grid_table(cut_short)
    assert folds == FOLDS
    np.testing.assert_array_equal(scores, whole)
    with pytest.raises(ValueError, match="must hold a repeat with all 4 folds"):
        audit.grid_table(cells[(cells["fold"] < 3) | (cells["trial"] > 0)])


def test_a_configuration_that_failed_is_left_out(audit: ModuleType) -> None:
    cells = grid()
    failed = (cells["trial"] == 3) & (cells["fold"] == 1)
    cells.loc[failed, ["state", "score"]] = ["failed", np.nan]
    scores, parameters, _ = audit.grid_table(cells)
    assert scores.shape == (TRIALS - 1, REPEATS * FOLDS)
    assert 100 * (TRIALS - 3) not in parameters


def test_a_clear_winner_is_found_for_less(audit: ModuleType) -> None:
    scores, parameters, folds = audit.grid_table(grid())
    row = audit.row(scores, parameters, Question("score", 0.01, 0.95, folds), replays=6)
    assert row["all_cells_recommend"] == TRIALS - 1 - 7
    assert row["all_cells_decide"]
    assert row["regret"] == row["shortfall"] == row["wrong"] == [0.0, 0.0]
    assert row["raced_share"][0] < 1.0
    assert row["share_of_all"][0] == pytest.approx(row["share"][0] / REPEATS, abs=1e-4)


def test_shuffling_keeps_repeats_together(audit: ModuleType) -> None:
    columns = np.arange(REPEATS * FOLDS, dtype=float)[None, :].repeat(2, axis=0)
    shuffled = audit._shuffled(columns, FOLDS, np.random.default_rng(1))
    assert sorted(shuffled[0]) == sorted(columns[0])
    assert not np.array_equal(shuffled, columns)
    for repeat in shuffled[0].reshape(REPEATS, FOLDS):
        assert len({int(column) // FOLDS for column in repeat}) == 1
