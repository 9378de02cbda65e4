"""The model of the learning rate, what it chooses, and the rounds of trainings that follow from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lora_search.spec import Experiment
from lora_search.statistics.by_adapter import knowing
from lora_search.statistics.question import Question
from lora_search.statistics.rate_fit import Problem, probable
from lora_search.statistics.rates import (
    FEATURES,
    RateCells,
    adapter_features,
    fit_rates,
    prior_centre,
)
from lora_search.statistics.rounds import (
    Outlook,
    Rules,
    _in_budget,
    next_round,
    no_settings,
    probes,
    probing_rates,
)
from lora_search.statistics.settings import Knowing, Settings, adapter_scores, fit

RANKS, LAYERS = (1, 2, 4, 8, 16), (1, 2, 3)
NOTHING = Knowing(score=0.5, log_loss=0.69, centre=np.log(8e-3))
FOLDS = 5
QUESTION = Question("score", 0.03, 0.95, FOLDS)
RULES = Rules(QUESTION, low=np.log(1e-6), high=0.0)


@pytest.fixture
def world():
    """Fifteen adapters and what a training of one at a rate scores; the best rate falls with rank and layers."""
    rank, layers = (np.array(values, dtype=float).ravel() for values in np.meshgrid(RANKS, LAYERS))
    parameters = rank * layers * 2 * 768.0
    features = adapter_features(rank, parameters, layers, np.full(15, 2.0), 384)
    best = np.log(6e-3) - 0.5 * np.log(rank) - 0.3 * np.log(layers)
    top = 0.76 + 0.02 * np.log(rank * layers) / np.log(48)
    rng = np.random.default_rng(0)
    fold = 0.02 * rng.standard_normal(FOLDS)

    def trained(adapter, log_rate, column):
        away = log_rate - best[adapter]
        kept = np.exp(-((abs(away) / (1.3 if away < 0 else 2.0)) ** 2))
        noise = np.random.default_rng([adapter, column, int(1e4 * (log_rate + 20))]).standard_normal()
        score = 0.5 + (top[adapter] - 0.5) * kept + fold[column] + 0.015 * noise
        return score, 0.69 - 0.2 * kept + 0.01 * noise

    return features, parameters, best, top, trained


def run_study(world, rules=RULES, room=None):
    """All rounds of a study on this world."""
    features, parameters, _, _, trained = world
    adapter, rate, score, loss = [], [], [], []

    def setting(row, log_rate):
        adapter.append(row)
        rate.append(log_rate)
        score.append([np.nan] * FOLDS)
        loss.append([np.nan] * FOLDS)
        return len(adapter) - 1

    def train(place, column):
        score[place][column], loss[place][column] = trained(adapter[place], rate[place], column)

    model = fit(no_settings(), features, NOTHING)
    for row, log_rate in probing_rates(probes(features, parameters), model, rules):
        train(setting(row, log_rate), 0)
    settled, eliminated, spent, rounds = {}, [], 0.0, 0
    while True:
        there = Settings(np.array(adapter), np.array(rate), np.array(score), np.array(loss))
        step = next_round(
            there,
            features,
            parameters,
            NOTHING,
            rules,
            settled=settled,
            eliminated=eliminated,
            spent=spent,
            room=None if room is None else room - len(adapter),
        )
        if not (step.wanted or step.complete or step.eliminated):
            return there, settled, eliminated
        spent = step.spent
        settled |= step.complete
        eliminated += [loss.trial for loss in step.eliminated]
        places = [setting(*new) for new in step.new]
        for want in step.wanted:
            train(want.setting if want.setting is not None else places[want.new], want.column)
        rounds += 1
        assert rounds < 60


def test_without_cells_the_model_is_what_is_known_beforehand(world):
    features, *_ = world
    model = fit(no_settings(), features, NOTHING)
    best, spread = model.optimum()
    assert (spread > 1.0).all()
    smallest, largest = np.argmin(features.sum(axis=1)), np.argmax(features.sum(axis=1))
    assert best[smallest] > best[largest], "small ranks and few layers want larger rates"


def test_the_width_lowers_the_rate():
    assert prior_centre(4096) < prior_centre(768) < prior_centre(384)
    assert len(FEATURES) == 4


def test_the_jacobian_is_the_derivative_of_the_residuals(world):
    features, *_ = world
    rng = np.random.default_rng(1)
    values = np.stack([np.append(rng.random(19), 0.0), np.append(rng.random(19), np.nan)])
    problem = Problem(features, values, rng.integers(0, 15, 20), rng.normal(size=20), rng.integers(0, 3, 20))
    at = problem.prior_mean + 0.3 * problem.prior_deviation * rng.normal(size=len(problem.prior_mean))
    scatter = problem.scatter(at, 1.0)
    numeric = np.stack(
        [
            (problem.residuals(at + step, scatter) - problem.residuals(at - step, scatter)) / 2e-6
            for step in 1e-6 * np.eye(len(at))
        ],
        axis=1,
    )
    assert np.allclose(problem.jacobian(at, scatter), numeric, atol=1e-4)


def narrow(world, rates, collapsed=()):
    """Cells of every adapter at its best rate times each of these, on as many columns: nothing is learned at a third of
    the best rate, nor at twice it, and those named (adapter, rate) collapse though their rate is good."""
    features, _, best, _, _ = world
    adapter, place = (values.ravel() for values in np.meshgrid(np.arange(15), np.arange(len(rates)), indexing="ij"))
    away = np.log(np.asarray(rates))[place]
    kept = ((away > np.log(0.4)) & (away < np.log(1.8))).astype(float)
    for pair in collapsed:
        kept[(adapter == pair[0]) & (place == pair[1])] = 0.0
    cells = RateCells(adapter, best[adapter] + away, place, 0.5 + 0.25 * kept, 0.69 - 0.2 * kept)
    return fit_rates(features, cells, nothing=NOTHING.score, nothing_log_loss=NOTHING.log_loss, centre=NOTHING.centre)


def test_noise_is_told_by_what_is_known_of_cells(world):
    """Without a loss beside the score there is one residual of a cell, and not two."""
    features, *_ = world
    rng = np.random.default_rng(5)
    adapter, column = (values.ravel() for values in np.meshgrid(np.arange(15), np.arange(5), indexing="ij"))
    values = np.stack([0.9 + 0.2 * rng.standard_normal(75), np.full(75, np.nan)])
    problem = Problem(features, values, adapter, np.zeros(75), column)
    at = problem.prior_mean
    scatter = problem.scatter(at, 1.0)
    squares = problem.residuals(at, scatter)[:75] ** 2
    assert problem._excess(at, scatter) > squares.mean()


def test_a_base_that_trainings_harm_is_left_at_the_rates_that_harm_least(world):
    """A language model of 2.00 nats as it is: the higher the rate, the worse."""
    features, _, best, _, _ = world
    adapter, away = np.repeat([0, 7, 14], 3), np.tile([-1.2, 0.0, 1.2], 3)
    score = -np.tile([2.01, 2.03, 2.30], 3)
    cells = RateCells(adapter, best[adapter] + away, np.zeros(9, dtype=np.int64), score, np.full(9, np.nan))
    known = {"nothing": -2.0, "nothing_log_loss": np.inf, "centre": NOTHING.centre}
    found, _ = fit_rates(features, cells, **known, may_fall=True).optimum()
    assert (found[[0, 7, 14]] < best[[0, 7, 14]] + 0.6).all()


def test_an_adapter_all_of_whose_settings_failed_does_not_stop_the_others(world):
    """The smallest diverged and there is no room to try it again: nothing is left out for its sake."""
    features, parameters, *_ = world
    score = np.full((15, FOLDS), np.nan)
    score[:, 0] = 0.75
    score[0, 0] = -np.inf
    settings = Settings(np.arange(15), np.log(np.full(15, 6e-3)), score, np.where(np.isfinite(score), 0.5, np.nan))
    rules = replace(RULES, question=replace(QUESTION, margin=0.2))
    step = next_round(settings, features, parameters, NOTHING, rules, room=0)
    assert {settings.adapter[want.setting] for want in step.wanted} | {loss.trial for loss in step.eliminated} == set(
        range(1, 15)
    )
    assert len(step.eliminated) < 14


def test_between_two_cliffs_the_middle_is_chosen(world):
    best = world[2]
    found, _ = narrow(world, (0.3, 0.6, 1.0, 1.5, 2.2)).optimum()
    middle = best + 0.5 * (np.log(0.4) + np.log(1.8))
    assert (np.abs(found - middle) < 0.35).all()


def test_a_training_that_collapses_by_bad_luck_moves_little(world):
    rates = (0.3, 0.6, 1.0, 1.5, 2.2)
    without, once = narrow(world, rates), narrow(world, rates, collapsed={(7, 2)})
    assert (np.abs(without.optimum()[0] - once.optimum()[0]) < 0.15).all()
    nearer = once.loss(7, once.optimum()[0][7] + 0.5)
    assert nearer > once.loss(7, once.optimum()[0][7]), "what is expected to be lost is least at the rate chosen"


def test_what_may_be_explained_in_two_ways_is_held_to_be_either():
    """One adapter learned nothing at any of three rates: all of them too low, or some too low and some too high."""
    features = np.log(np.array([[1.0, 3, 2, 2], [4, 3, 9, 2], [16, 6, 9, 2]]))
    adapter = np.repeat([0, 1, 2], 3)
    rate = np.log([1.3e-3, 4.3e-3, 1.4e-2, 4.8e-4, 1.6e-3, 5.3e-3, 2.2e-4, 7.2e-4, 2.4e-3]) - np.log(1.4e-2)
    score = np.array([0, 0, 0.95, 0, 0.05, 0.9, 0, 0, 0])
    problem = Problem(features, np.stack([score, score]), adapter, rate, np.zeros(9, dtype=np.int64))
    found = probable(problem.minima(None))
    assert sum(probability for probability, _ in found) == pytest.approx(1.0)
    assert [probability for probability, _ in found] == sorted((p for p, _ in found), reverse=True)
    assert all(np.isfinite(one.covariance).all() for _, one in found)


def test_probes_tell_the_best_rate_of_adapters_that_were_never_trained(world):
    features, parameters, best, _, trained = world
    model = fit(no_settings(), features, NOTHING)
    pairs = probing_rates(probes(features, parameters), model, RULES)
    values = np.array([trained(row, rate, 0) for row, rate in pairs])
    cells = RateCells(
        np.array([row for row, _ in pairs]),
        np.array([rate for _, rate in pairs]),
        np.zeros(len(pairs), dtype=np.int64),
        values[:, 0],
        values[:, 1],
    )
    found, spread = fit_rates(
        features, cells, nothing=NOTHING.score, nothing_log_loss=NOTHING.log_loss, centre=NOTHING.centre
    ).optimum()
    assert np.abs(found - best).mean() < 0.6
    assert (np.abs(found - best) < 3 * spread + 0.3).all()


def test_the_probed_are_the_smallest_the_largest_and_one_between(world):
    features, parameters, *_ = world
    rows = probes(features, parameters)
    assert parameters[rows[0]] == parameters.min()
    assert parameters[rows[1]] == parameters.max()
    assert parameters.min() < parameters[rows[2]] < parameters.max()


def test_rates_stay_where_they_may_be(world):
    features, parameters, *_ = world
    narrow = Rules(QUESTION, low=np.log(1e-3), high=np.log(4e-3))
    model = fit(no_settings(), features, NOTHING)
    rates = [rate for _, rate in probing_rates(probes(features, parameters), model, narrow)]
    assert min(rates) >= np.log(1e-3) - 1e-12
    assert max(rates) <= np.log(4e-3) + 1e-12
    there, *_ = run_study(world, narrow)
    assert ((there.log_rate >= np.log(1e-3) - 1e-12) & (there.log_rate <= np.log(4e-3) + 1e-12)).all()


def test_every_adapter_that_is_trained_to_the_end_is_near_its_best_rate(world):
    _, _, best, _, _ = world
    there, settled, eliminated = run_study(world)
    assert settled
    assert set(settled) | set(eliminated) == set(range(15))
    for row, place in settled.items():
        assert abs(there.log_rate[place] - best[row]) < 1.0
        assert not np.isnan(there.score[place]).any()


def test_a_limit_of_trainings_is_kept(world):
    few = Rules(QUESTION, low=np.log(1e-6), high=0.0, cells=45)
    there, settled, _ = run_study(world, few)
    assert there.trained.sum() <= 45
    assert settled


@pytest.mark.parametrize(("left", "kept"), [(0, set()), (1, {0}), (4, {0, 1}), (5, {0, 1}), (9, {0, 1, 2})])
def test_the_last_trainings_finish_what_is_nearly_done(left, kept):
    """The first adapter lacks one fold of five, the second three; the third is to begin anew at another rate."""
    score = np.full((3, FOLDS), np.nan)
    score[0, :4] = score[1, :2] = score[2, :3] = 0.7
    settings = Settings(np.arange(3), np.zeros(3), score, np.full((3, FOLDS), np.nan))
    rules = Rules(QUESTION, low=np.log(1e-6), high=0.0, cells=9 + left)
    nothing = np.zeros((1, 3))
    ahead = Outlook(np.arange(3), nothing, nothing, np.array([0.5, 0.6, 0.7]))
    assert set(_in_budget({0: 0, 1: 1, 2: None}, ahead, settings, rules)) == kept


def test_no_more_settings_are_asked_for_than_there_is_room_for(world):
    there, settled, _ = run_study(world, room=21)
    assert len(there.adapter) <= 21
    assert settled


def test_room_for_another_rate_goes_to_an_adapter_that_can_be_trained(world, monkeypatch):
    """Of two that need another rate, both tried having failed, the budget has trainings for one only."""
    features, parameters, *_ = world
    score = np.full((3, FOLDS), np.nan)
    score[0], score[1, 0], score[2, 0] = 0.75, -np.inf, -np.inf
    for left in (5, 10):
        settings = Settings(np.array([0, left, 15 - left]), np.log(np.full(3, 6e-3)), score, 1.2 - score)
        monkeypatch.setattr(
            "lora_search.statistics.rounds._in_budget",
            lambda chosen, *_, left=left: {row: setting for row, setting in chosen.items() if row == left},
        )
        step = next_round(settings, features, parameters, NOTHING, RULES, pool=(0, 5, 10), settled=(0,), room=1)
        assert [row for row, _ in step.new] == [left]


def test_an_adapter_that_may_have_no_other_rate_ends_at_the_one_it_has(world):
    """All at their best rates but one, far above its own: with room it is tried anew, without it leaves the race."""
    features, parameters, best, _, trained = world
    rates = np.concatenate([np.where(np.arange(15) == 7, best + 1.5, best), best[[0, 14]] - 1.5])
    adapter = np.array([*range(15), 0, 14])
    cells = [[trained(row, rate, column) for column in (0, 1)] for row, rate in zip(adapter, rates, strict=True)]
    score, loss = np.full((2, 17, FOLDS), np.nan)
    score[:, :2], loss[:, :2] = np.array(cells).transpose(2, 0, 1)
    settings = Settings(adapter, rates, score, loss)
    asked = (settings, features, parameters, NOTHING, RULES)
    assert 7 in {row for row, _ in next_round(*asked).new}
    stuck = next_round(*asked, room=0)
    assert 7 in {loss.trial for loss in stuck.eliminated}
    assert not stuck.new


def some_settings(scores, rates, adapter=None):
    scores = np.array(scores, dtype=float)
    adapter = np.zeros(len(scores), dtype=np.int64) if adapter is None else np.array(adapter)
    return Settings(adapter, np.log(rates), scores, np.where(np.isfinite(scores), 1.2 - scores, np.nan))


FEATURE = np.zeros((1, 4))


def test_the_fold_that_flatters_a_setting_does_not_choose_it():
    """Two settings equally good; each has one lucky fold. Chosen with it, the adapter would score both luckies."""
    scores = [[0.90, 0.75, 0.75, 0.75], [0.75, 0.90, 0.75, 0.75]]
    found = adapter_scores(some_settings(scores, [5e-3, 6e-3]), FEATURE, NOTHING, tolerance=0.2)
    assert found.chosen[0, 0] == 1
    assert found.chosen[0, 1] == 0
    assert found.score[0, :2] == pytest.approx([0.75, 0.75])


def test_a_setting_that_diverged_never_stands_for_its_adapter():
    scores = [[-np.inf, np.nan, np.nan], [0.75, 0.74, 0.76]]
    found = adapter_scores(some_settings(scores, [5e-2, 5e-3]), FEATURE, NOTHING, tolerance=0.01)
    assert found.main[0] == 1
    assert (found.chosen[0] == 1).all()


def test_a_setting_clearly_below_another_leaves_the_fold_open():
    scores = [[0.55, 0.56, 0.55], [np.nan, 0.78, 0.79]]
    found = adapter_scores(some_settings(scores, [1e-4, 6e-3]), FEATURE, NOTHING, tolerance=0.01)
    assert found.main[0] == 1
    assert np.isnan(found.score[0, 0])


def test_who_stands_for_an_adapter_may_be_said():
    scores = [[0.75, 0.75, 0.75], [0.76, np.nan, np.nan]]
    found = adapter_scores(some_settings(scores, [5e-3, 6e-3]), FEATURE, NOTHING, tolerance=0.0, settled={0: 0})
    assert found.main[0] == 0
    assert not np.isnan(found.score[0]).any()


def test_a_loss_of_knowing_nothing_that_is_not_known_is_found_among_the_cells(world):
    """Entities: what always answering "outside" loses depends on the words, which a study does not keep."""
    features, _, best, _, trained = world
    rows = np.repeat(np.arange(15), 5)
    rates = np.concatenate([best[row] + np.array([-8.0, -2.0, 0.0, 1.0, 2.0]) for row in range(15)])
    scores, losses = np.array([trained(row, rate, 0) for row, rate in zip(rows, rates, strict=True)]).T
    scores[0], losses[0] = -np.inf, np.nan  # one that diverged
    cells = RateCells(rows, rates, np.zeros(len(rows), dtype=np.int64), scores, losses)

    def optimum(nothing_log_loss, of):
        return fit_rates(features, of, nothing=0.5, nothing_log_loss=nothing_log_loss, centre=np.log(8e-3)).optimum()

    without = RateCells(rows, rates, cells.column, scores, np.full(len(rows), np.nan))
    known, found, blind = optimum(0.69, cells), optimum(np.inf, cells), optimum(np.inf, without)
    np.testing.assert_allclose(found[0], known[0], atol=0.45)
    assert found[1].mean() < blind[1].mean()  # surer than from scores alone


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_what_is_trained_next_does_not_depend_on_the_unit_of_an_error(world, unit):
    """In kilometres as in millimetres: the same rates, the same trainings, the same adapters left out."""
    features, parameters, _, _, trained = world
    adapter, rate = np.repeat([0, 7, 14], 3), np.tile(np.log([2e-3, 6e-3, 2e-2]), 3)
    cells = [[trained(*each, column) for column in range(2)] for each in zip(adapter, rate, strict=True)]
    score, loss = np.moveaxis(np.array(cells), -1, 0)
    blank = np.full((9, FOLDS - 2), np.nan)
    rounds, optima = [], []
    for scale in (1.0, unit):
        scores, losses = (np.concatenate([scale * each, blank], axis=1) for each in (score, loss))
        there = Settings(adapter, rate, scores, losses)
        little = 1e-3 * min(1.0, scale)
        nothing = Knowing(scale * NOTHING.score, scale * NOTHING.log_loss, NOTHING.centre, little, little)
        rules = Rules(Question("rmse", scale * 0.03, 0.95, FOLDS), RULES.low, RULES.high, least=little)
        found = next_round(there, features, parameters, nothing, rules)
        rounds.append((found.wanted, found.complete, [loss.trial for loss in found.eliminated]))
        optima.append(fit(there, features, nothing).optimum()[0])
    assert rounds[0] == rounds[1]
    np.testing.assert_allclose(*optima, rtol=1e-5)


def test_a_difference_that_counts_as_one_is_small_beside_the_spread_of_a_label(world):
    experiment = Experiment.model_validate(
        {
            "name": "prices",
            "model": {"base": "model", "task": "regression"},
            "data": {"train": "prices.csv"},
            "verdict": {"metric": "rmse", "margin": 5.0},
        }
    )
    truth = np.array([0.0, 2.0, 0.0, 2.0])
    for unit, least in ((1.0, 1e-3), (1e-6, 1e-9), (1e6, 1e-3)):
        found = knowing(experiment, unit * truth, 384)
        assert found.score == -unit
        assert found.log_loss == unit
        assert (found.least, found.least_loss) == pytest.approx((least, least))
    pearson = experiment.model_copy(update={"verdict": experiment.verdict.model_copy(update={"metric": "pearson"})})
    found = knowing(pearson, 1e-6 * truth, 384)
    assert (found.score, found.least) == (0.0, 1e-3)
    assert found.least_loss == pytest.approx(1e-9)
