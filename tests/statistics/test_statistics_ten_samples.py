"""The audit of reported standard errors: groups are dealt whole, and errors held against the scatter that occurs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from experiment_scripts import audit_module

from lora_search.statistics.comparison import Array
from lora_search.statistics.examples import Recorded


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return audit_module("ten_samples")


def save(file: Path, seed: int, examples: int = 300) -> None:
    """Three rows of which the second is better, each right about an easy example more often."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, examples)
    latent = rng.standard_normal(examples) + 0.5 * rng.standard_normal((3, examples)) + np.array([[0.5], [0.9], [0.5]])
    sure = 1.0 / (1.0 + np.exp(-latent))
    of_one = np.where(label == 1, sure, 1.0 - sure)
    np.savez_compressed(
        file,
        probability=np.stack([1.0 - of_one, of_one], axis=-1).astype(np.float16),
        fold=(np.arange(examples) % 5).astype(np.int8),
        label=label.astype(np.int8),
        group=np.arange(examples).astype(np.int16),
        facts=np.array("{}"),
    )


def test_groups_are_dealt_whole_and_evenly(audit: ModuleType) -> None:
    groups = np.repeat(np.arange(200), np.arange(200) % 9 + 1)
    dealt = audit.deal(groups, 10, np.random.default_rng(0))
    assert sorted(np.concatenate(dealt)) == list(range(groups.size))
    assert len({group for rows in dealt for group in set(groups[rows])}) == sum(
        len(set(groups[rows])) for rows in dealt
    )
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 9


def test_errors_are_held_against_the_scatter(audit: ModuleType, tmp_path: Path) -> None:
    for seed in range(12):
        save(tmp_path / f"sample-{seed}.npz", seed)
    studies = [audit.recorded(tmp_path / f"sample-{seed}.npz") for seed in range(12)]
    lines = audit.analyse(studies)
    assert len(lines) == 9
    first = lines[0]
    assert (first["metric"], first["pair"]) == ("accuracy", [0, 1])
    assert first["difference"] < 0
    seen = [np.mean([right[0].mean() - right[1].mean() for right in _by_fold(study)]) for study in studies]
    assert first["scatter"] == pytest.approx(np.std(seen, ddof=1), abs=1e-5)
    assert first["examples"]["ratio"] == pytest.approx(first["examples"]["standard_error"] / first["scatter"], rel=1e-2)
    ratios = audit.summary(lines)
    assert 0.6 < ratios["examples"] < ratios["fold_scores"]


def _by_fold(study: Recorded) -> list[Array]:
    examples = study.scores(range(3), "accuracy")
    assert examples is not None
    return [examples.values[:, 0, examples.folds[0] == fold] for fold in range(5)]
