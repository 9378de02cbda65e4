"""Warnings: said when they should be, silent when not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lora_search.statistics import Question, guards, score_matrix

QUESTION = Question("accuracy", 0.01, 0.95, 5)


def test_learning_rate_on_the_edge() -> None:
    assert guards.learning_rate_edge(1e-3, 2e-4, 4e-3) is None
    assert guards.learning_rate_edge(3.9e-3, 2e-4, 4e-3) == (
        "The best learning rate, 0.0039, is at the upper end of its range: "
        "try a higher search.learning_rate.high than 0.004."
    )
    low = guards.learning_rate_edge(2.1e-4, 2e-4, 4e-3)
    assert low is not None
    assert "try a lower search.learning_rate.low than 0.0002" in low


def test_rank_on_the_edge() -> None:
    assert guards.rank_edge(2, 4, [1, 2, 4, 8]) is None
    assert guards.rank_edge(1, 4, [1, 2, 4, 8]) is None
    assert guards.rank_edge(8, 8, [8]) is None
    assert guards.rank_edge(4, 8, [4, 8]) == "The best rank is the largest searched, 8: a larger one may score better."
    assert guards.rank_edge(4, 4, [4, 8]) == "The recommended rank is the smallest searched, 4: a smaller one may do."


def test_layers_on_the_edge() -> None:
    counts = {"all": 6, "top-1/2": 3, "top-1/3": 2}
    assert guards.layers_edge("top-1/2", counts) is None
    assert guards.layers_edge("all", {"all": 6}) is None
    assert guards.layers_edge("top-1/6", {"all": 6, "top-1/6": 1}) is None
    assert guards.layers_edge("top-1/3", counts) == (
        "The recommended adapter is on the fewest layers searched (the top third): fewer may do."
    )


def test_no_better_than_guessing() -> None:
    assert guards.no_better_than_guessing(0.8, (0.75, 0.85), 0.5, "accuracy") is None
    assert guards.no_better_than_guessing(0.8, (float("nan"), float("nan")), 0.5, "accuracy") is None
    said = guards.no_better_than_guessing(0.52, (0.48, 0.56), 0.5, "accuracy")
    assert said is not None
    assert said.startswith(
        "The best accuracy, 52.0 %, is not clearly above what knowing nothing of the texts scores (50.0 %)"
    )
    assert guards.no_better_than_guessing(1.2, (1.0, 1.4), 1.5, "rmse") is None
    said = guards.no_better_than_guessing(1.2, (0.9, 1.6), 1.5, "rmse")
    assert said is not None
    assert said.startswith("The best RMSE, 1.2, is not clearly below what knowing nothing of the texts scores (1.5)")


def test_few_examples_and_copies() -> None:
    assert guards.few_examples_per_fold([30, 31]) is None
    assert guards.few_examples_per_fold([29, 31]) == (
        "The smallest fold has 29 examples, fewer than 30: use fewer folds or more data."
    )
    assert guards.duplicated_texts(0, 100) is None
    said = guards.duplicated_texts(7, 140)
    assert said is not None
    assert said.startswith("7 of 140 texts (5 %) repeat another text")


def _frames(scores: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    trials = pd.DataFrame({"trial": range(len(scores)), "state": "complete", "adapter_parameters": 1, "seconds": 1.0})
    cells = [
        {"trial": trial, "repeat": 0, "fold": fold, "state": "complete", "accuracy": score}
        for trial, row in enumerate(scores)
        for fold, score in enumerate(row)
    ]
    return trials, pd.DataFrame(cells)


def test_resolvable_margin_by_hand() -> None:
    # differences .02 .01 .02 .00 .03: S = sqrt(130e-6); 1.6449 * S * sqrt(1/4)
    trials, cells = _frames(np.array([[0.80, 0.82, 0.78, 0.81, 0.79], [0.82, 0.83, 0.80, 0.81, 0.82]]))
    margin = guards.resolvable_margin(score_matrix(trials, cells, "accuracy"), QUESTION)
    assert margin == pytest.approx(1.6448536 * np.sqrt(130e-6) / 2)
    assert guards.resolvable_margin(score_matrix(trials[:1], cells, "accuracy"), QUESTION) is None
    one_cell = cells[cells["fold"] == 0]
    assert guards.resolvable_margin(score_matrix(trials, one_cell, "accuracy"), QUESTION) is None


def test_numbers_in_a_unit_of_their_own_keep_their_figures() -> None:
    said = guards.margin_too_small(1e-6, 2.04e-6, "rmse")
    assert said is not None
    assert "about 2.1e-06 label units would be possible" in said
    said = guards.no_better_than_guessing(2.1e-5, (1.9e-5, 2.4e-5), 2.2e-5, "rmse")
    assert said is not None
    assert "The best RMSE, 2.1e-05, is not clearly below" in said


def test_margin_too_small() -> None:
    assert guards.margin_too_small(0.01, None) is None
    assert guards.margin_too_small(0.02, 0.015) is None
    assert guards.margin_too_small(0.005, 0.01234) == (
        "A margin of 0.5 points is smaller than these data can resolve with any number of trainings; "
        "about 1.3 points would be possible, or more examples."
    )


def test_head_alone() -> None:
    better = [0.10, 0.11, 0.12, 0.10, 0.09]
    assert guards.head_alone_is_enough(better, 5, 0.01, 0.95) is None
    same = [0.001, -0.001, 0.002, 0.0, -0.002]
    assert guards.head_alone_is_enough(same, 5, 0.01, 0.95) == (
        "Training the head alone is not worse than LoRA by more than 1 point: it may be all you need."
    )
    unsure = guards.head_alone_is_enough([0.05, -0.04, 0.06, -0.03, 0.01], 5, 0.01, 0.95)
    assert unsure == "LoRA is not shown to beat training the head alone: 1 point higher on average, within the noise."


def test_the_head_alone_is_not_enough_for_scores_of_few_examples_that_tie() -> None:
    """Folds of four examples that score the same tell nothing within five points; folds of four hundred do."""
    tied = [0.0, 0.0, 0.0]
    told = "LoRA is not shown to beat training the head alone: the same on average, within the noise."
    assert guards.head_alone_is_enough(tied, 3, 0.05, 0.95, resolution=1 / 6 / 4**2) == told
    assert guards.head_alone_is_enough(tied, 3, 0.05, 0.95, resolution=1 / 6 / 400**2) == (
        "Training the head alone is not worse than LoRA by more than 5 points: it may be all you need."
    )


def test_holdout_disagrees() -> None:
    assert guards.holdout_disagrees(0.78, 0.80, (0.77, 0.83), 200) is None
    said = guards.holdout_disagrees(0.60, 0.80, (0.77, 0.83), 200)
    assert said is not None
    assert said.startswith("The hold-out score, 60.0 %, is 20 points below the cross-validated 80.0 %, more than")


def test_only_what_there_is_to_say() -> None:
    assert guards.warnings_of(None, "Look.", None) == ("Look.",)


def test_more_layers_than_searched_may_score_higher() -> None:
    counts = {"top-1/2": 3, "top-1/3": 2}
    assert guards.more_layers_edge("top-1/2", counts, 6) == (
        "The best adapter is on the most layers searched (the top half): more may score better."
    )
    assert guards.more_layers_edge("top-1/3", counts, 6) is None
    assert guards.more_layers_edge("all", {"all": 6, "top-1/3": 2}, 6) is None


def test_a_stricter_question_than_the_race_was_run_for() -> None:
    assert guards.raced_for_less(3, 0.03, 0.95) == (
        "Racing stopped 3 trials that hardly mattered for a margin of 3 points at 95 %; for this stricter question "
        "they might: run a study that asks it."
    )
    assert guards.raced_for_less(0, 0.03, 0.95) is None


def test_smaller_adapters_that_were_stopped_before_they_were_shown_worse() -> None:
    assert guards.smaller_stopped_early([], 0.03) is None
    assert guards.smaller_stopped_early([7], 0.03) == (
        "Trial 7, smaller than the recommended, was stopped before it could be shown to be more than 3 points worse "
        "than the best: unlikely to be recommended, it may be good enough all the same; a study of it alone would tell."
    )
    several = guards.smaller_stopped_early([2, 7], 0.01)
    assert several is not None
    assert (
        "Trials 2, 7, smaller than the recommended, were stopped before they could be shown to be more than 1 point"
        in several
    )


def test_adapters_left_at_rates_far_from_their_best() -> None:
    assert guards.rates_left_untried([], 24, 0.03) is None
    assert guards.rates_left_untried([17], 24, 0.03) == (
        "Trial 17 is judged at a learning rate believed to cost more than 3 points against its best, and the 24 trials"
        " that search.trials allows are used up: what it scores says little of this adapter. A study of more trials"
        " would tell."
    )
    several = guards.rates_left_untried([9, 13], 18, 0.01)
    assert several is not None
    assert several.startswith("Trials 9, 13 are judged at learning rates believed to cost more than 1 point")
    assert several.endswith("what they score says little of these adapters. A study of more trials would tell.")


def test_adapters_whose_best_rates_the_range_leaves_out() -> None:
    assert guards.rates_beyond_the_range([], 1e-4, 1e-3, 0.03) is None
    assert guards.rates_beyond_the_range([17], 1e-4, 1e-3, 0.03) == (
        "Trial 17 is judged at a learning rate believed to cost more than 3 points against its best, which"
        " search.learning_rate, 0.0001 to 0.001, leaves out: what it scores says little of this adapter. A study of a"
        " wider range would tell."
    )


def test_a_baseline_at_the_end_of_its_rates() -> None:
    assert guards.baseline_rate_edge("Full fine-tuning", (1e-4,), (1e-5, 1e-4)) == (
        "Full fine-tuning scores best at the highest learning rate tried for it, 0.0001: a higher one may suit it "
        "better."
    )
    assert guards.baseline_rate_edge("Head alone", (1e-3,), (1e-3, 1e-2)) == (
        "Head alone scores best at the lowest learning rate tried for it, 0.001: a lower one may suit it better."
    )
    assert guards.baseline_rate_edge("BitFit", (1e-3,), (1e-4, 1e-3, 1e-2)) is None
    assert guards.baseline_rate_edge("BitFit", (1e-3, 1e-2), (1e-3, 1e-2)) is None, "folds differ about it"
    assert guards.baseline_rate_edge("BitFit", (1e-3,), (1e-3,)) is None, "no other was tried"


def test_adapters_that_a_limit_of_trainings_left_out() -> None:
    assert guards.adapters_never_tried(0, 12, 40) is None
    assert guards.adapters_never_tried(11, 12, 5) == (
        "11 of the 12 adapters searched were never trained: the limit of 5 trainings (search.cells) was reached before."
        " A study of more would tell."
    )
    assert (guards.adapters_never_tried(1, 12, 30) or "").startswith("1 of the 12 adapters searched was never")
