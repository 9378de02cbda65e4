"""Racing: what is eliminated, why, and that the error spent is counted."""

from __future__ import annotations

import numpy as np
import pytest

from lora_search.statistics import Question
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.racing import Race, cheapest, race, release

PLANNED, FOLDS = 5, 5


def matrix(scores: np.ndarray, parameters: list[float] | None = None) -> ScoreMatrix:
    trials, cells = scores.shape
    return ScoreMatrix(
        trials=tuple(range(trials)),
        columns=tuple((0, fold) for fold in range(cells)),
        scores=scores,
        parameters=np.array(parameters if parameters is not None else np.arange(1.0, trials + 1)),
        seconds=np.zeros(trials),
    )


def table(means: list[float], noise: float, cells: list[int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scores = np.array(means)[:, None] + noise * rng.standard_normal((len(means), PLANNED))
    scores += 0.02 * rng.standard_normal(PLANNED)
    scores[np.arange(PLANNED) >= np.array(cells)[:, None]] = np.nan
    return scores


def look(scores: np.ndarray, parameters: list[float] | None = None, margin: float = 0.01, **changes: object) -> Race:
    question = Question("accuracy", margin, 0.95, FOLDS, PLANNED // FOLDS)
    settings: dict[str, object] = {"trials": len(scores), "draws": 500}
    return race(matrix(scores, parameters), question, **(settings | changes))  # type: ignore[arg-type]


def test_a_hopeless_trial_is_inferior() -> None:
    result = look(table([0.80, 0.801, 0.799, 0.60], 0.003, [5, 5, 5, 2]))
    assert [loss.trial for loss in result.eliminated] == [3]
    loss = result.eliminated[0]
    assert loss.reason == "inferior"
    assert loss.against in (0, 1, 2)
    assert loss.probability > 0.99
    assert result.spent == pytest.approx(loss.charge)


def test_a_larger_trial_that_cannot_beat_a_smaller_one_is_futile() -> None:
    result = look(table([0.70, 0.80, 0.80, 0.8005], 0.001, [5, 5, 5, 2]), margin=0.02)
    assert [(loss.trial, loss.reason) for loss in result.eliminated] == [(3, "futile")]
    assert result.eliminated[0].against in (0, 1, 2)
    assert result.eliminated[0].probability > 0.99


def test_a_smaller_trial_as_good_as_the_best_is_kept() -> None:
    scores = table([0.80, 0.80, 0.80, 0.80], 0.001, [2, 5, 5, 5])
    assert look(scores, margin=0.02).eliminated == ()


def test_a_contender_is_kept() -> None:
    scores = table([0.80, 0.80, 0.79, 0.83], 0.01, [5, 5, 5, 2])
    assert look(scores).eliminated == ()


def test_trained_to_the_end_is_never_eliminated() -> None:
    assert look(table([0.80, 0.801, 0.799, 0.60], 0.003, [5, 5, 5, 5])).eliminated == ()


def test_nothing_is_eliminated_while_the_noise_is_unknown() -> None:
    assert look(table([0.80, 0.20, 0.90], 0.003, [1, 1, 1])).eliminated == ()
    assert look(table([0.80], 0.003, [2])).eliminated == ()


def test_spent_error_is_spent() -> None:
    scores = table([0.80, 0.801, 0.799, 0.60], 0.003, [5, 5, 5, 2])
    before = look(scores)
    assert look(scores, spent=0.04).eliminated == ()
    after = look(scores, eliminated=[3], spent=before.spent)
    assert after.eliminated == ()
    assert after.spent == before.spent


def test_looks_are_deterministic() -> None:
    scores = table([0.80, 0.78, 0.76, 0.77, 0.79], 0.01, [5, 5, 5, 2, 1])
    assert look(scores, seed=3) == look(scores, seed=3)


def test_order_of_rows_does_not_matter_to_who_is_out() -> None:
    scores = table([0.80, 0.801, 0.799, 0.60, 0.65], 0.003, [5, 5, 5, 2, 2])
    sizes = [1.0, 2.0, 3.0, 4.0, 5.0]
    forward, backward = look(scores, sizes), look(scores[::-1], sizes[::-1])
    assert {4 - loss.trial for loss in backward.eliminated} == {loss.trial for loss in forward.eliminated} == {3, 4}


def test_the_sum_of_charges_stays_within_the_allowance() -> None:
    chances = np.array([0.5, 0.001, 0.02, 0.004, 0.01])
    eligible = np.array([True, True, True, True, False])
    assert cheapest(chances, eligible, 0.006) == [1, 3]
    assert cheapest(chances, eligible, 0.0) == []
    assert cheapest(chances, eligible, 1.0) == [1, 3, 2, 0]


def test_error_is_released_as_the_study_advances() -> None:
    assert release(0.0) == 0.0
    assert release(0.25) == pytest.approx(0.5)
    assert release(1.0) == release(1.7) == 1.0


def test_wrong_eliminations_stay_near_what_was_spent() -> None:
    # 60 small studies raced at two rungs against their full run; at 4 %, 9 or more have probability 0.0004
    wrong = 0
    for seed in range(60):
        full = table([0.77, 0.80, 0.79, 0.80, 0.805, 0.78, 0.80, 0.76], 0.01, [5] * 8, seed)
        best = int(full.mean(axis=1).argmax())
        scores, out, spent = full.copy(), set[int](), 0.0
        for cells in (2, 3):
            scores = full.copy()
            scores[3:, cells:] = np.nan
            result = look(scores, eliminated=sorted(out), spent=spent, draws=300, seed=seed)
            spent = result.spent
            out |= {loss.trial for loss in result.eliminated}
        wrong += best in out
    assert wrong < 9
