"""The calibration audit itself: its simulations have the noise they say, and a study comes out whole."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from experiment_scripts import audit_module


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return audit_module("calibration")


@pytest.mark.parametrize("kind", ["normal", "no luck", "heteroscedastic", "heavy tails", "families", "groups"])
def test_trials_are_right_as_often_as_their_true_scores_say(audit: ModuleType, kind: str) -> None:
    rng = np.random.default_rng(0)
    true = np.linspace(0.6, 0.9, audit.TRIALS)
    shape = audit.Shape(5, 1, 0.2)
    seen = np.mean(
        [audit.simulate_examples(true, kind, 1000, shape, rng).values.mean(axis=(1, 2)) for _ in range(30)], 0
    )
    np.testing.assert_allclose(seen, true, atol=0.02)
    assert np.abs(seen - true).mean() < 0.006


@pytest.mark.parametrize("kind", ["normal", "heteroscedastic", "heavy tails", "families"])
def test_luck_has_the_size_and_the_correlation_it_says(audit: ModuleType, kind: str) -> None:
    luck = sys.modules[audit.simulate_examples.__module__]
    rng = np.random.default_rng(0)
    family, shape = np.arange(24) % 4, luck.Shape(5, 2, 0.2)
    drawn = np.stack([luck.unit_luck(kind, family, shape, rng) for _ in range(400)])
    assert drawn.std() == pytest.approx(1.0, rel=0.15)
    assert np.corrcoef(drawn[:, :, 0, 0].ravel(), drawn[:, :, 1, 2].ravel())[0, 1] == pytest.approx(0.2, abs=0.07)
    assert np.mean(luck.luck_sizes(kind, 4000, rng) ** 2) == pytest.approx(luck.LUCK**2, rel=0.1)


def test_a_clear_study_is_decided_rightly_and_cheaply(audit: ModuleType) -> None:
    rng = np.random.default_rng(1)
    true = audit.clear_winner(rng)
    outcome = audit.simulate(true, audit.noise_models(0.2, None)["no luck"][1600](true, rng), rng, 0)
    assert outcome.decided
    assert not outcome.wrong
    assert not outcome.full_recommended_eliminated
    assert outcome.regret == 0.0
    assert outcome.cells < audit.TRIALS * audit.FOLDS


def test_a_drowned_study_is_not_decided(audit: ModuleType) -> None:
    rng = np.random.default_rng(2)
    true = audit.drowned(rng)
    drawn = audit.noise_models(0.2, None)["normal"][audit.DROWNING](true, rng)
    assert not audit.simulate(true, drawn, rng, 0).decided


def test_real_residuals_keep_their_size(audit: ModuleType) -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"trial": trial, "repeat": repeat, "fold": fold, "state": "complete", "score": 0.8 + 0.01 * rng.normal()}
        for trial in range(30)
        for repeat in range(4)
        for fold in range(5)
    ]
    residuals = audit.real_residuals(pd.DataFrame(rows))
    assert residuals.shape == (30, 20)
    assert residuals.std() == pytest.approx(0.01, rel=0.1)
    drawn = audit._of_residuals(residuals, 0.2)(np.zeros(audit.TRIALS), rng)
    assert drawn.examples is None
    assert drawn.scores.shape == (audit.TRIALS, audit.FOLDS * audit.REPEATS)
    np.testing.assert_allclose(residuals.mean(axis=0), 0.0, atol=1e-12)


def test_promises_name_what_broke(audit: ModuleType) -> None:
    figures = {"full_recommended_eliminated": [0.0, 0.0], "pair_covered": [0.95, 0.0], "score_covered": [0.95, 0.0]}
    rows = [
        {"scores": name, "noise": "normal", "level": 0.004, "wrong": [rate, 0.01], "undecided": [1.0, 0.0]} | figures
        for name, rate in (("equal", 0.0), ("drowned", 0.2))
    ]
    found = {line["promise"]: line for line in audit.promises(rows, [])}
    wrong = found["wrong verdicts <= 5 %"]
    assert wrong["value"] == [0.1, 0.0071]
    assert not wrong["holds"]
    assert wrong["worst_case"] == "scores drowned, level 0.004"
    assert found["undecided where data cannot decide >= 90 %"]["holds"]
