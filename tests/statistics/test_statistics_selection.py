"""decide(): frames in, a verdict out, and the sentence a person would say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lora_search.errors import ExperimentError, StudyError
from lora_search.spec.facts import OUT_OF_CELLS
from lora_search.statistics import Question, Verdict, decide, next_cells
from lora_search.statistics.contest import Contest
from lora_search.statistics.guards import smaller_not_shown_worse
from lora_search.statistics.wording import layers_name, parameter_share, percent_sure, points, score_number

RANKS = [1, 2, 4, 8, 16, 32]


def frames(
    means: list[float], noise: float, *, repeats: int = 1, folds: int = 5, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials of rising rank with these true means, and their cells."""
    rng = np.random.default_rng(seed)
    keys = [(repeat, fold) for repeat in range(repeats) for fold in range(folds)]
    scores = np.array(means)[:, None] + noise * rng.standard_normal((len(means), len(keys)))
    scores = scores + 0.02 * rng.standard_normal(len(keys))
    trials = [
        {
            "trial": trial,
            "state": "complete",
            "rank": RANKS[trial],
            "alpha": 2.0 * RANKS[trial],
            "targets": "query+value",
            "layers": "top-1/3" if trial < 2 else "all",
            "scaling": "lora",
            "use_dora": False,
            "bias": "none",
            "rank_pattern": "uniform",
            "learning_rate": 1e-3,
            "dropout": 0.0,
            "adapter_parameters": 1000 * RANKS[trial],
            "head_parameters": 770,
            "seconds": 10.0 + trial,
        }
        for trial in range(len(means))
    ]
    cells = [
        {"trial": trial, "repeat": repeat, "fold": fold, "state": "complete", "accuracy": scores[trial, column]}
        for trial in range(len(means))
        for column, (repeat, fold) in enumerate(keys)
    ]
    return pd.DataFrame(trials), pd.DataFrame(cells)


def verdict_of(trials: pd.DataFrame, cells: pd.DataFrame, **changes: Any) -> Verdict:
    asked: dict[str, Any] = {"folds": 5, "margin": 0.01, "confidence": 0.95, "metric": "accuracy"}
    question = Question(**{name: changes.pop(name, asked.get(name, 1)) for name in (*asked, "repeats")})
    return decide(trials, cells, question, **changes)


def test_the_smallest_adapter_that_is_not_worse() -> None:
    verdict = verdict_of(*frames([0.70, 0.80, 0.801, 0.802, 0.803], 0.001))
    assert verdict.status == "decided"
    assert verdict.recommended is not None
    assert verdict.best is not None
    assert (verdict.recommended.trial, verdict.best.trial) == (1, 4)
    assert verdict.more_cells_needed is None
    assert [comparison.status for comparison in verdict.comparisons] == ["worse"] + ["not-worse"] * 4
    assert verdict.sentence() == (
        "Rank 2 on query+value of the top third is not worse than the best (rank 16 on query+value of all layers) by "
        "more than 1 point (more than 99 % sure), with 1/8 of its adapter parameters."
    )


def test_the_best_is_recommended_when_everything_smaller_is_worse() -> None:
    verdict = verdict_of(*frames([0.60, 0.70, 0.80], 0.001))
    assert verdict.status == "decided"
    assert verdict.sentence() == (
        "Rank 4 on query+value of all layers scored best (more than 99 % sure that none beats it by more than "
        "1 point), and every smaller adapter is worse."
    )


def test_the_smallest_may_be_the_best() -> None:
    verdict = verdict_of(*frames([0.80, 0.70, 0.60], 0.001))
    assert verdict.sentence() == (
        "Rank 1 on query+value of the top third scored best and is the smallest compared "
        "(more than 99 % sure that none beats it by more than 1 point)."
    )


def test_noise_is_answered_with_cannot_tell() -> None:
    verdict = verdict_of(*frames([0.80] * 5, 0.05))
    assert verdict.status == "undecided"
    assert verdict.more_cells_needed is None
    assert verdict.recommended is not None
    assert verdict.recommended == verdict.best
    assert verdict.sentence().startswith("Cannot tell: more trainings on these data would not settle whether rank 1 ")


def test_a_few_more_cells_are_counted_and_asked_for() -> None:
    trials, cells = frames([0.80, 0.83, 0.83, 0.832], 0.005)
    verdict = verdict_of(trials, cells)
    assert verdict.status == "undecided"
    assert verdict.in_question is not None
    assert verdict.in_question.trial == 1
    assert verdict.more_cells_needed is not None
    assert verdict.sentence().startswith(
        f"Cannot tell yet: about {verdict.more_cells_needed} more trainings would settle "
    )
    wanted = next_cells(trials, cells, QUESTION, repeats=4)
    assert {request.repeat for request in wanted} == {1}
    assert [request.fold for request in wanted] == sorted(request.fold for request in wanted)
    assert {request.trial for request in wanted} >= {1}
    assert 0 not in {request.trial for request in wanted}


def test_no_cells_are_asked_for_when_decided_or_spent() -> None:
    question = Question("accuracy", 0.01, 0.95, 5)
    assert next_cells(*frames([0.70, 0.80, 0.801], 0.001), question, repeats=4) == ()
    assert next_cells(*frames([0.80, 0.83, 0.83, 0.832], 0.005), question, repeats=1) == ()
    assert next_cells(*frames([0.80] * 5, 0.05), question, repeats=1) == ()
    trials, cells = frames([0.80, 0.83], 0.005)
    for state in ("failed", "pruned"):
        assert next_cells(trials.assign(state=state), cells, question, repeats=4) == ()


def test_where_all_others_failed_the_most_promising_stopped_trial_goes_on() -> None:
    trials, cells = stopped(*frames([0.80, 0.83, 0.81, 0.82], 0.002), [0, 1, 2])
    trials.loc[3, "state"] = "failed"
    assert [(request.trial, request.fold) for request in next_cells(trials, cells, QUESTION, repeats=4)] == [
        (1, 2),
        (1, 3),
        (1, 4),
    ]


def test_where_the_verdict_is_out_of_reach_the_highest_scores_get_a_repeat() -> None:
    question = Question("accuracy", 0.01, 0.95, 5)
    trials, cells = frames([0.80] * 6, 0.05)
    highest = cells.groupby("trial")["accuracy"].mean().nlargest(4).index
    wanted = next_cells(trials, cells, question, repeats=4)
    assert {(request.repeat, request.trial) for request in wanted} == {(1, trial) for trial in highest}
    assert len(wanted) == 20


def test_a_score_that_is_hardly_the_best_gets_no_repeat() -> None:
    question = Question("accuracy", 0.001, 0.95, 5)
    trials, cells = frames([0.80, 0.81, 0.60, 0.60, 0.60], 0.03)
    assert verdict_of(trials, cells, margin=0.001).more_cells_needed is None
    wanted = next_cells(trials, cells, question, repeats=4)
    assert {(request.repeat, request.trial) for request in wanted} == {(1, 0), (1, 1)}


def test_a_failed_extra_cell_is_not_asked_for_again() -> None:
    trials, cells = frames([0.80, 0.83, 0.83, 0.832], 0.005)
    question = Question("accuracy", 0.01, 0.95, 5)
    wanted = next_cells(trials, cells, question, repeats=2)
    failed = [
        {"trial": r.trial, "repeat": r.repeat, "fold": r.fold, "state": "failed", "accuracy": np.nan} for r in wanted
    ]
    assert next_cells(trials, pd.concat([cells, pd.DataFrame(failed)], ignore_index=True), question, repeats=2) == ()


def test_only_complete_trials_are_judged_and_only_complete_cells_count() -> None:
    trials, cells = frames([0.80, 0.801, 0.79, 0.98], 0.001)
    trials.loc[trials["trial"] == 2, "state"] = "pruned"
    trials.loc[trials["trial"] == 3, "state"] = "failed"
    cells.loc[(cells["trial"] == 1) & (cells["fold"] == 4), ["state", "accuracy"]] = ["failed", np.nan]
    verdict = verdict_of(trials, cells)
    assert [comparison.trial for comparison in verdict.comparisons] == [0, 1]
    assert verdict.comparisons[0].cells == 4
    assert verdict.cells_trained == 19


def test_nothing_trained_and_one_trained() -> None:
    trials, cells = frames([0.80, 0.81], 0.001)
    trials["state"] = "running"
    verdict = verdict_of(trials, cells)
    assert (verdict.status, verdict.recommended, verdict.best) == ("no-trials", None, None)
    assert verdict.sentence() == "No trial was trained to the end, so there is nothing to recommend yet."
    trials.loc[0, "state"] = "complete"
    verdict = verdict_of(trials, cells)
    assert verdict.status == "decided"
    assert "nothing to compare it with" in verdict.sentence()


def test_one_cell_per_trial_decides_nothing() -> None:
    trials, cells = frames([0.5, 0.8, 0.9], 0.001)
    verdict = verdict_of(trials, cells[cells["fold"] == 0])
    assert verdict.status == "undecided"
    assert verdict.to_dict()["best"]["score_interval"] == [None, None]


def test_margin_and_confidence_recompute_from_the_same_frames() -> None:
    trials, cells = frames([0.780, 0.80, 0.801], 0.002)
    strict, generous = verdict_of(trials, cells, margin=0.005), verdict_of(trials, cells, margin=0.05)
    assert strict.recommended is not None
    assert generous.recommended is not None
    assert strict.recommended.trial > generous.recommended.trial == 0


def test_verdict_json_has_the_contract_and_survives_json() -> None:
    verdict = verdict_of(*frames([0.70, 0.80, 0.801], 0.001), warnings=["Look."], holdout_score=0.79)
    content = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert list(content) == [
        "status",
        "sentence",
        "recommended",
        "best",
        "margin",
        "confidence",
        "probability_not_worse",
        "metric",
        "cells_trained",
        "cells_skipped_by_racing",
        "corrected_score",
        "corrected_interval",
        "holdout_score",
        "more_cells_needed",
        "warnings",
        "comparisons",
        "baselines",
    ]
    assert set(content["recommended"]) >= {
        "trial",
        "adapter",
        "score_mean",
        "score_interval",
        "adapter_parameters",
        "head_parameters",
        "seconds",
    }
    assert content["recommended"]["adapter"] == {
        "rank": 2,
        "alpha": 4.0,
        "targets": "query+value",
        "layers": "top-1/3",
        "scaling": "lora",
        "use_dora": False,
        "bias": "none",
        "rank_pattern": "uniform",
    }
    assert content["warnings"] == ["Look."]
    assert content["corrected_score"] is None
    assert content["cells_skipped_by_racing"] is None


def test_wrong_settings_are_named_all_at_once() -> None:
    with pytest.raises(ExperimentError) as caught:
        verdict_of(*frames([0.8], 0.001), margin=-0.1, confidence=0.4, folds=1)
    assert caught.value.mistakes == (
        "cv.folds: must be at least 2, got 1",
        "verdict.margin: must be at least 0 and below 1, got -0.1",
        "verdict.confidence: must be above 0.5 and below 1, got 0.4",
    )


def test_a_missing_metric_is_named() -> None:
    with pytest.raises(StudyError, match="none named macro_f1"):
        verdict_of(*frames([0.8, 0.9], 0.001), metric="macro_f1")


def test_score_interval_by_hand() -> None:
    trials, cells = frames([0.8, 0.8], 0.0)
    scores = dict(enumerate([0.78, 0.79, 0.80, 0.81, 0.82]))
    # mean .8, S^2 = 250e-6, scale^2 = .45 * S^2; t(4) has 97.5 % below 2.7764
    verdict = verdict_of(trials, cells.assign(accuracy=cells["fold"].map(scores)))
    assert verdict.best is not None
    low, high = verdict.best.score_interval
    assert high - 0.8 == pytest.approx(2.7764451 * np.sqrt(0.45 * 250e-6))
    assert 0.8 - low == pytest.approx(high - 0.8)


def test_words() -> None:
    assert points(0.01) == "1 point"
    assert points(0.005) == "0.5 points"
    told = [score_number(score) for score in (0.8124, 0.0, -0.25, 0.0000012, 54.3, 812.44, 1196167.3)]
    assert told == ["0.812", "0.000", "-0.250", "0.0000012", "54.300", "812.4", "1196167"]
    assert percent_sure(0.9799) == "97 % sure"
    assert percent_sure(0.9999) == "more than 99 % sure"
    assert parameter_share(1000, 16000) == "1/16 of its adapter parameters"
    assert parameter_share(2000, 3000) == "2/3 of its adapter parameters"
    assert parameter_share(4000, 4000) == "as many adapter parameters"
    assert parameter_share(537, 1000) == "54 % of its adapter parameters"
    assert layers_name("all") == "all layers"
    assert layers_name("top-2") == "the top 2 layers"
    assert layers_name("top-1/6") == "the top 1/6 of the layers"
    assert layers_name("3,4") == "layers 3, 4"
    assert layers_name("5") == "layer 5"


def test_twins_are_told_apart() -> None:
    trials, cells = frames([0.80, 0.801], 0.0005)
    trials.loc[1, ["rank", "layers", "learning_rate"]] = [1, "top-1/3", 2e-3]
    verdict = verdict_of(trials, cells)
    assert "rank 1 on query+value of the top third, alpha 4" in verdict.sentence()


# -- trials that racing stopped, scores that tie by chance -----------------------------------------------------------


def stopped(trials: pd.DataFrame, cells: pd.DataFrame, numbers: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same study, had racing stopped these trials after two folds."""
    trials = trials.assign(state=["pruned" if number in numbers else "complete" for number in trials["trial"]])
    return trials, cells[~cells["trial"].isin(numbers) | (cells["fold"] < 2)]


def test_what_racing_left_alone_is_said_to_be_so() -> None:
    verdict = verdict_of(*stopped(*frames([0.80, 0.7, 0.7], 0.002), [1, 2]))
    assert verdict.status == "decided"
    assert verdict.probability_not_worse is not None
    assert verdict.probability_not_worse > 0.99
    assert verdict.comparisons[0].against in {1, 2}
    assert verdict.sentence() == (
        "Rank 1 on query+value of the top third is what racing left: each of 2 other adapters was stopped when it had "
        "hardly a chance to be recommended."
    )


QUESTION = Question("accuracy", 0.01, 0.95, 5)


def test_a_stopped_trial_that_may_be_the_best_keeps_the_verdict_open_until_it_has_its_cells() -> None:
    full = frames([0.70, 0.80, 0.801, 0.83], 0.002)
    assert verdict_of(*full).recommended.trial == 3  # type: ignore[union-attr]
    trials, cells = stopped(*full, [3])
    verdict = verdict_of(trials, cells)
    assert verdict.status == "undecided"
    assert verdict.rival is not None
    assert (verdict.rival.trial, verdict.rival.cells, verdict.more_cells_needed) == (3, 2, 3)
    assert verdict.sentence() == (
        "Cannot tell yet: about 3 more trainings would settle whether rank 2 on query+value of the top third is within "
        "1 point of rank 8 on query+value of all layers, which racing stopped."
    )
    assert [(request.trial, request.fold) for request in next_cells(trials, cells, QUESTION, repeats=4)] == [
        (3, 2),
        (3, 3),
        (3, 4),
    ]


def test_a_stopped_trial_that_cannot_be_the_best_is_not_asked_about() -> None:
    trials, cells = stopped(*frames([0.70, 0.80, 0.801, 0.79], 0.002), [3])
    verdict = verdict_of(trials, cells)
    assert (verdict.status, verdict.rival) == ("decided", None)
    assert next_cells(trials, cells, QUESTION, repeats=4) == ()


def test_one_lucky_fold_is_not_believed() -> None:
    trials, cells = stopped(*frames([0.80] * 5, 0.003), [4])
    cells = cells[(cells["trial"] != 4) | (cells["fold"] < 1)]
    assert verdict_of(trials, cells).status == "decided"
    # three standard deviations above all others, which lie close together
    cells.loc[cells["trial"] == 4, "accuracy"] += 0.009
    assert verdict_of(trials, cells).status == "decided"


def test_a_stopped_trial_that_has_all_its_cells_is_not_asked_for_again() -> None:
    trials, cells = frames([0.70, 0.80, 0.801, 0.83], 0.002)
    trials.loc[3, "state"] = "pruned"
    assert all(request.trial != 3 for request in next_cells(trials, cells, QUESTION, repeats=4))


def test_smaller_trials_that_were_stopped_are_not_forgotten() -> None:
    verdict = verdict_of(*stopped(*frames([0.70, 0.80, 0.79], 0.001), [0]))
    assert verdict.stopped_trials == 1
    assert "is the smallest trained to the end (" in verdict.sentence()


def test_an_adapter_alone_is_no_verdict_where_the_others_were_only_short_of_trainings() -> None:
    trials, cells = stopped(*frames([0.70, 0.80, 0.79], 0.001), [0, 2])
    assert verdict_of(trials, cells).status == "decided"
    trials.loc[[0, 2], "failure"] = OUT_OF_CELLS
    trials["cells"] = cells.groupby("trial").size().reindex(trials["trial"]).to_numpy()
    verdict = verdict_of(trials, cells)
    assert (verdict.status, verdict.more_cells_needed) == ("undecided", 6)
    assert verdict.sentence() == (
        "Only rank 2 on query+value of the top third was trained to the end, for want of trainings: about 6 more would "
        "tell how the others compare."
    )


def test_smaller_trials_that_were_stopped_are_named_unless_they_are_shown_to_be_worse() -> None:
    question = Question("accuracy", 0.01, 0.95, 5)
    table = stopped(*frames([0.60, 0.795, 0.80, 0.80, 0.81], 0.004), [0, 1, 4])
    assert smaller_not_shown_worse(Contest(*table, "accuracy"), 3000, question) == [1]
    assert smaller_not_shown_worse(Contest(*table, "accuracy"), 10**6, question) == [1, 4]
    assert smaller_not_shown_worse(Contest(*table, "accuracy"), 1500, question) == []
    assert smaller_not_shown_worse(Contest(*frames([0.60, 0.80, 0.80], 0.004), "accuracy"), 10**6, question) == []


def test_scores_of_few_examples_that_tie_decide_nothing() -> None:
    trials, cells = frames([0.8, 0.8], 0.0, folds=2)
    assert verdict_of(trials, cells, folds=2).status == "decided"  # with any number of examples behind them
    for examples, status in ((20, "undecided"), (100_000, "decided")):
        assert verdict_of(trials, cells.assign(examples=examples), folds=2).status == status


def test_the_counting_noise_by_hand() -> None:
    # two trials, two folds of 30 examples, all equal: S^2 = 2 / (12 * 900), scale = sqrt((1/2 + 1) S^2) = 0.016667 with
    # one degree of freedom, so P(d <= 0.05) = 1/2 + atan(3) / pi
    trials, cells = frames([0.8, 0.8], 0.0, folds=2)
    verdict = verdict_of(trials, cells.assign(examples=30), folds=2, margin=0.05)
    assert verdict.probability_not_worse == pytest.approx(0.5 + np.arctan(3.0) / np.pi)


def test_a_look_is_counted_for_every_extra_repeat() -> None:
    trials, cells = frames([0.800, 0.803], 0.004, repeats=3)
    asked_once = verdict_of(trials, cells, repeats=3).probability_not_worse
    asked_thrice = verdict_of(trials, cells, repeats=1).probability_not_worse
    assert asked_once is not None
    assert asked_thrice is not None
    assert 1 - asked_thrice == pytest.approx(np.sqrt(3) * (1 - asked_once))


def test_a_score_interval_stays_within_what_the_metric_can_be() -> None:
    trials, cells = frames([0.8, 0.7], 0.9, folds=2)
    low, high = verdict_of(trials, cells, folds=2).best.score_interval  # type: ignore[union-attr]
    assert (low, high) == (0.0, 1.0)


def test_a_loss_is_judged_as_the_score_it_mirrors() -> None:
    trials, cells = frames([0.70, 0.795, 0.80, 0.80, 0.80, 0.80], 0.005, repeats=2)
    losses = cells.assign(completion_loss=3.0 - cells["accuracy"])
    score, loss = (verdict_of(trials, losses, metric=metric) for metric in ("accuracy", "completion_loss"))
    assert score.recommended is not None
    assert score.best is not None
    assert loss.recommended is not None
    assert loss.best is not None
    assert (loss.status, loss.recommended.trial, loss.best.trial) == (
        score.status,
        score.recommended.trial,
        score.best.trial,
    )
    assert loss.best.score_mean == pytest.approx(3.0 - score.best.score_mean)
    low, high = score.best.score_interval
    assert loss.best.score_interval == pytest.approx((3.0 - high, 3.0 - low))
    for mine, other in zip(loss.comparisons, score.comparisons, strict=True):
        assert mine.difference == pytest.approx(other.difference)
        assert mine.probability_not_worse == pytest.approx(other.probability_not_worse, abs=2e-3)
        assert mine.status == other.status
    assert "0.01 nats" in loss.sentence()
    assert "1 point" in score.sentence()
