"""What adapters are worth beside what is no adapter, on studies whose numbers are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated_studies import frames, study, trial_row

from lora_search.spec.facts import HEAD_ALONE, STEP_BYTES, HeadAlone
from lora_search.statistics.baselines import baseline_verdict, chosen_cells, head_alone
from lora_search.statistics.beside import Kept, kept_sentence
from lora_search.statistics.judging import judge
from lora_search.store.reader import StudyTables

FOLDS = 5


def cells_of(name: str, rates: dict[float | None, list[float]], **changes: Any) -> list[dict[str, Any]]:
    """Cells by rate and fold, from their scores; None is a training that failed."""
    return [
        {
            "baseline": name, "learning_rate": math.nan if rate is None else rate, "repeat": 0, "fold": fold,
            "state": "failed" if score is None else "complete", "score": math.nan if score is None else score,
            "log_loss": 0.5, "examples": 240, "seconds": 10.0, "trainable_parameters": 1000, "step_bytes": 4e6,
            "failure": "the loss was nan at step 3 of 10" if score is None else None,
        } | changes
        for rate, scores in rates.items()
        for fold, score in enumerate(scores)
    ]  # fmt: skip


def test_a_fold_is_scored_at_the_rate_its_other_folds_speak_for() -> None:
    cells = pd.DataFrame(cells_of("full", {1e-5: [0.9, 0.5, 0.5], 1e-4: [0.4, 0.6, 0.6]}))
    found = chosen_cells(cells, "accuracy")
    # without fold 0 the higher rate is better; without another the lower one is, by the luck of fold 0
    assert list(found["learning_rate"]) == [1e-4, 1e-5, 1e-5]
    assert list(found["score"]) == [0.4, 0.5, 0.5]


def test_ties_go_to_the_lower_log_loss_and_then_the_lower_rate() -> None:
    rows = cells_of("full", {3e-5: [0.5] * 3, 1e-5: [0.5] * 3}) + cells_of("full", {1e-4: [0.5] * 3}, log_loss=0.4)
    assert set(chosen_cells(pd.DataFrame(rows), "accuracy")["learning_rate"]) == {1e-4}
    assert set(chosen_cells(pd.DataFrame(rows[:6]), "accuracy")["learning_rate"]) == {1e-5}


def test_a_rate_that_fails_is_the_last_resort() -> None:
    cells = pd.DataFrame(cells_of("full", {1e-4: [0.5, 0.5, 0.5], 1e-2: [0.9, None, 0.9]}))
    found = chosen_cells(cells, "accuracy")
    # of fold 1 the other folds do not know that it fails there
    assert list(found["learning_rate"]) == [1e-4, 1e-2, 1e-4]
    assert list(found["state"]) == ["complete", "failed", "complete"]


def study_with(rows: list[dict[str, Any]], noise: float = 0.002, **options: Any) -> StudyTables:
    trials = [trial_row(0, 4, "query+value", "all", 1e-3), trial_row(1, 16, "query+value", "all", 1e-3)]
    found = study(Path(), trials, noise=noise, **options)
    return StudyTables(
        found.folder, found.experiment, found.environment, found.trials, found.cells,
        {STEP_BYTES.name: {"0": 1_000_000, "1": 2_000_000}}, baselines=pd.DataFrame(rows),
    )  # fmt: skip


def beside(lora: pd.Series, head: float, full: float, jitter: float = 0.0, **changes: Any) -> list[dict[str, Any]]:
    """A head and a full fine-tuning that lie so far below and above an adapter on every fold, about."""
    random = np.random.default_rng(0)
    scores = {
        name: [float(s) + gap + jitter * random.normal() for s in lora] for name, gap in (("h", head), ("f", full))
    }
    return [
        *cells_of("head", {1e-3: scores["h"]}, trainable_parameters=770, step_bytes=5e5, seconds=1.0),
        *cells_of("full", {1e-4: scores["f"]}, trainable_parameters=10**7, step_bytes=4e6, seconds=20.0, **changes),
    ]


def lora_scores(tables: StudyTables, trial: int) -> pd.Series:
    return tables.cells.loc[tables.cells["trial"] == trial, "score"]


def judged(head: float, full: float, jitter: float = 0.003) -> tuple[Any, Any]:
    nothing = study_with(cells_of("majority", {None: [0.5] * FOLDS}))
    verdict = judge(nothing)
    lora = lora_scores(nothing, verdict.recommended.trial)
    tables = study_with(beside(lora, head, full, jitter))
    return judge(tables), tables


def test_lora_keeps_its_part_of_what_full_fine_tuning_gains() -> None:
    verdict, _ = judged(-0.08, 0.02)
    kept = verdict.baselines.kept
    assert kept.gain == pytest.approx(0.1, abs=0.005)
    assert kept.share == pytest.approx(0.8, abs=0.05)
    low, high = kept.share_interval
    assert low < 0.8 < high
    assert high - low < 0.4
    recommended = verdict.recommended
    assert kept.parameters == (recommended.adapter_parameters + recommended.head_parameters) / 10**7
    assert kept.memory == (1_000_000 if recommended.trial == 0 else 2_000_000) / 4e6
    assert kept.seconds == pytest.approx(recommended.seconds / FOLDS / 20, rel=0.1)
    assert kept.seconds_interval[0] < kept.seconds < kept.seconds_interval[1]
    said = verdict.to_dict()["baselines"]["sentence"]
    assert said == verdict.baselines.sentence()
    assert " % (" in said
    assert "of what full fine-tuning gains over the head alone, with" in said


def test_where_full_fine_tuning_gains_nothing_there_is_no_share() -> None:
    for full in (-0.08, -0.2):
        verdict, _ = judged(-0.08, full)
        kept = verdict.baselines.kept
        assert (kept.share, kept.share_interval) == (None, None)
        said = verdict.baselines.sentence()
        assert said.startswith("Full fine-tuning is not shown to gain anything over the head alone (")
        assert "so there is no share of it that LoRA" in said


def test_a_full_fine_tuning_that_failed_is_told_and_compared_with_nothing() -> None:
    nothing = study_with(cells_of("majority", {None: [0.5] * FOLDS}))
    lora = lora_scores(nothing, judge(nothing).recommended.trial)
    rows = [row for row in beside(lora, -0.08, 0.0) if row["baseline"] == "head"]
    rows += cells_of("full", {1.0: [None] * FOLDS})
    found = judge(study_with(rows)).baselines
    assert (found.kept, found.sentence()) == (None, None)
    full = found.compared[-1]
    assert (full.name, full.score_mean, full.failure) == ("full", None, "the loss was nan at step 3 of 10")
    assert found.to_dict()["compared"][-1]["score_interval"] is None


def test_what_is_no_adapter_changes_nothing_for_adapters() -> None:
    nothing = study_with(cells_of("majority", {None: [0.9] * FOLDS}))
    plain = StudyTables(
        *(getattr(nothing, name) for name in ("folder", "experiment", "environment", "trials", "cells", "facts"))
    )
    ours, theirs = judge(nothing).to_dict(), judge(plain).to_dict()
    assert theirs.pop("baselines") is None
    assert ours.pop("baselines")["compared"][0]["name"] == "majority"
    assert ours == theirs


def test_scores_are_told_with_intervals_within_their_bounds() -> None:
    found = judge(study_with(cells_of("majority", {None: [0.99, 1.0, 0.98, 1.0, 0.2]}))).baselines
    row = found.compared[0]
    assert row.score_mean == pytest.approx(0.834)
    assert 0.0 <= row.score_interval[0] < 0.834 < row.score_interval[1] <= 1.0
    low, high = row.difference_interval
    assert low < row.difference < high


def test_the_head_alone_of_older_studies_is_still_known() -> None:
    cells = tuple(HeadAlone(3, 0, fold, {"accuracy": 0.7}) for fold in range(FOLDS))
    old = study_with(cells_of("majority", {None: [0.5] * FOLDS}))
    old.facts[HEAD_ALONE.name] = HEAD_ALONE.to_json(cells)
    assert head_alone(old) == cells
    new = study_with(cells_of("head", {1e-3: [0.6] * FOLDS}))
    assert [cell.scores for cell in head_alone(new)] == [{"accuracy": 0.6}] * FOLDS


def test_without_a_recommended_adapter_there_is_nothing_beside_it() -> None:
    trials, cells = frames([])
    tables = study_with(cells_of("majority", {None: [0.5] * FOLDS}))
    assert baseline_verdict(tables, None) is None
    assert len(trials) == len(cells) == 0


def kept(**changes: Any) -> Kept:
    values: dict[str, Any] = {
        "gain": 0.1, "gain_interval": (0.05, 0.15), "share": 0.925, "share_interval": (0.71, 1.18),
        "parameters": 0.000213, "seconds": 0.31, "seconds_interval": (0.28, 0.35), "memory": 0.42,
    }  # fmt: skip
    return Kept(**(values | changes))


ADAPTER = {"rank": 4, "targets": "query+value", "layers": "all"}


def test_the_sentence() -> None:
    assert kept_sentence(kept(), ADAPTER, "accuracy") == (
        "LoRA (rank 4 on query+value of all layers) keeps 92 % (71 to 118) of what full fine-tuning gains over the "
        "head alone, with 0.021 % of its trainable parameters, in 0.31 (0.28 to 0.35) of its time and 0.42 of its peak "
        "memory."
    )
    alone = kept(memory=None, seconds_interval=(0.0, math.inf))
    assert kept_sentence(alone, ADAPTER, "accuracy").endswith(
        "with 0.021 % of its trainable parameters, in 0.31 of its time."
    )


def test_the_sentence_where_there_is_no_share() -> None:
    nothing = kept(gain=0.004, gain_interval=(-0.01, 0.018), share=None, share_interval=None)
    assert kept_sentence(nothing, ADAPTER, "accuracy") == (
        "Full fine-tuning is not shown to gain anything over the head alone (+0.4 points, between -1.0 and +1.8), so "
        "there is no share of it that LoRA (rank 4 on query+value of all layers) could keep; it trains with 0.021 % of "
        "its trainable parameters, in 0.31 (0.28 to 0.35) of its time and 0.42 of its peak memory."
    )
    unknown = kept(gain=-0.1, gain_interval=(-math.inf, math.inf), share=None, share_interval=None)
    assert "(-10.0 points, with too few folds to say more)" in kept_sentence(unknown, ADAPTER, "accuracy")
