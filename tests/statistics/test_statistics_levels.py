"""Levels of trials with unequal cells, and what a lucky fold is worth."""

from __future__ import annotations

import numpy as np
import pytest

from lora_search.statistics.levels import additive_scores, believed_scores, fit_levels


def test_an_easy_extra_repeat_does_not_make_a_trial_better() -> None:
    scores = np.array([[0.80, 0.82, 0.90, 0.92], [0.81, 0.83, np.nan, np.nan]])
    adjusted = additive_scores(scores)
    assert adjusted[1] - adjusted[0] == pytest.approx(0.01)


def test_equal_cells_are_plain_means() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_allclose(additive_scores(scores), scores.mean(axis=-1))


def test_additive_scores_recover_an_exact_additive_table() -> None:
    rng = np.random.default_rng(1)
    trial, cell = rng.normal(size=6), rng.normal(size=8)
    scores = trial[:, None] + cell
    scores[rng.random(scores.shape) < 0.4] = np.nan
    scores[:, 0] = trial + cell[0]
    np.testing.assert_allclose(np.diff(additive_scores(scores)), np.diff(trial), atol=1e-9)


def test_noise_of_a_trial_is_estimated_from_its_residuals() -> None:
    rng = np.random.default_rng(2)
    scores = 0.8 + 0.05 * rng.normal(size=20) + 0.02 * rng.normal(size=(200, 30, 20))
    levels = fit_levels(scores)
    assert float(levels.variance.mean()) == pytest.approx(4e-4, rel=0.02)
    assert levels.degrees_of_freedom.max() <= 29 * 19


def test_a_lucky_fold_does_not_look_best() -> None:
    rng = np.random.default_rng(3)
    scores = np.linspace(0.78, 0.82, 12)[:, None] + 0.01 * rng.normal(size=(12, 5))
    lucky = np.full((1, 5), np.nan)
    lucky[0, 0] = scores[:, 0].max() + 0.015
    table = np.concatenate([scores, lucky])
    assert int(additive_scores(table).argmax()) == 12
    believed = believed_scores(table)
    assert believed[12] < additive_scores(table)[12]
    assert fit_levels(table).trust[12] < fit_levels(table).trust[0]


def test_equal_trials_are_believed_equal() -> None:
    rng = np.random.default_rng(4)
    scores = 0.8 + 0.02 * rng.normal(size=(300, 24, 5))
    assert np.median(fit_levels(scores).trust) < 0.3


def test_unknown_noise_leaves_levels_alone() -> None:
    scores = np.array([[0.8], [0.7], [0.9]])
    levels = fit_levels(scores)
    np.testing.assert_allclose(levels.believed, [0.8, 0.7, 0.9])
    assert np.isnan(levels.variance).all()
