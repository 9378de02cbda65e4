"""The correlated t posterior: numbers worked out by hand, numbers from baycomp, and the shrinkage of variances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from lora_search.statistics.comparison import (
    VariancePrior,
    correlated_t,
    fit_variance_prior,
    inverse_trigamma,
    pairwise,
)

WORSE = np.array([0.80, 0.82, 0.78, 0.81, 0.79])
BETTER = np.array([0.82, 0.83, 0.80, 0.81, 0.82])


def _prior(variance: float, df: float, most: float = np.inf) -> VariancePrior:
    return VariancePrior(np.array(variance), np.array(df), np.array(most))


def test_posterior_worked_out_by_hand() -> None:
    # differences .02 .01 .02 .00 .03: mean .016; squared deviations sum to 520e-6, so S^2 = 130e-6
    # scale^2 = (1/5 + 1/4) * 130e-6 = 58.5e-6, with 4 degrees of freedom
    posterior = correlated_t(BETTER - WORSE, folds=5)
    assert float(posterior.mean) == pytest.approx(0.016)
    assert float(posterior.variance) == pytest.approx(130e-6)
    assert float(posterior.scale) == pytest.approx(np.sqrt(58.5e-6))
    assert float(posterior.degrees_of_freedom) == 4
    # t(4) has 97.5 % below 2.7764
    low, high = posterior.interval(0.95)
    assert float(high) == pytest.approx(0.016 + 2.7764451 * np.sqrt(58.5e-6))
    assert float(low) == pytest.approx(0.016 - 2.7764451 * np.sqrt(58.5e-6))


def test_agrees_with_baycomp_one_run() -> None:
    # baycomp 1.0.3: two_on_single(WORSE, BETTER, rope=0.01) -> left, rope, right
    posterior = correlated_t(BETTER - WORSE, folds=5)
    assert float(posterior.probability_at_most(-0.01)) == pytest.approx(0.013646878697603958, rel=1e-9)
    assert 1 - float(posterior.probability_at_most(0.01)) == pytest.approx(0.761689666363579, rel=1e-9)


def test_agrees_with_baycomp_two_runs() -> None:
    # baycomp 1.0.3: two_on_single(first, second, rope=0.01, runs=2); variance 0.0001637261111111108, df 9
    first = np.array([0.8, 0.806, 0.795, 0.782, 0.791, 0.78, 0.801, 0.827, 0.79, 0.788])
    second = np.array([0.81, 0.807, 0.802, 0.781, 0.799, 0.814, 0.773, 0.791, 0.762, 0.774])
    posterior = correlated_t(second - first, folds=5)
    assert float(posterior.scale) ** 2 == pytest.approx(0.0001637261111111108, rel=1e-9)
    assert float(posterior.degrees_of_freedom) == 9
    assert float(posterior.probability_at_most(-0.01)) == pytest.approx(0.344210158522976, rel=1e-9)
    assert 1 - float(posterior.probability_at_most(0.01)) == pytest.approx(0.1401193580626593, rel=1e-9)


def test_zero_variance_is_certainty_about_what_was_seen() -> None:
    # baycomp: two_on_single(x, x + 0.02, rope=0.01) -> (0, 0, 1) and (x, x, rope=0.01) -> (0, 1, 0)
    always = correlated_t(np.full(3, 0.02), folds=3)
    assert float(always.scale) == 0
    assert float(always.probability_at_most(0.01)) == 0
    assert float(always.probability_at_most(0.03)) == 1
    same = correlated_t(np.zeros(3), folds=3)
    assert float(same.probability_at_most(0.0)) == 1


def test_one_cell_says_nothing_about_noise() -> None:
    alone = correlated_t(np.array([0.02]), folds=5)
    assert float(alone.probability_at_most(0.5)) == 0.5
    assert np.isinf(alone.quantile(0.9))
    none = correlated_t(np.array([np.nan, np.nan]), folds=5)
    assert float(none.probability_at_most(0.5)) == 0.5
    assert int(none.cells) == 0


def test_one_cell_borrows_the_whole_variance() -> None:
    # no degrees of freedom of its own: variance 4e-4 with 6, scale^2 = (1 + 1/4) * 4e-4
    posterior = correlated_t(np.array([0.02]), folds=5, prior=_prior(4e-4, 6.0))
    assert float(posterior.scale) ** 2 == pytest.approx(5e-4)
    assert float(posterior.degrees_of_freedom) == 6


def test_missing_cells_leave_only_the_shared_ones() -> None:
    gaps = np.array([0.02, np.nan, 0.01, 0.02, np.nan, 0.0, 0.03])
    full, holes = correlated_t(BETTER - WORSE, folds=5), correlated_t(gaps, folds=5)
    assert float(holes.scale) == pytest.approx(float(full.scale))
    assert int(holes.cells) == 5


def test_shrinkage_worked_out_by_hand() -> None:
    # (6 * 400e-6 + 4 * 130e-6) / 10 = 292e-6 with 10 degrees of freedom
    posterior = correlated_t(BETTER - WORSE, folds=5, prior=_prior(400e-6, 6.0))
    assert float(posterior.variance) == pytest.approx(292e-6)
    assert float(posterior.degrees_of_freedom) == 10
    # at most 8 degrees of freedom in all: (4 * 400e-6 + 4 * 130e-6) / 8
    capped = correlated_t(BETTER - WORSE, folds=5, prior=_prior(400e-6, np.inf, most=8.0))
    assert float(capped.variance) == pytest.approx(265e-6)
    assert float(capped.degrees_of_freedom) == 8


def test_prior_recovers_the_family_the_variances_came_from() -> None:
    # s_g^2 = sigma_g^2 chi2(4) / 4 with d0 s0^2 / sigma_g^2 ~ chi2(d0): the model of Smyth 2004
    rng = np.random.default_rng(3)
    true = 10.0 * 2e-4 / rng.chisquare(10.0, size=20_000)
    seen = true * rng.chisquare(4.0, size=true.size) / 4.0
    prior = fit_variance_prior(seen, np.full(seen.size, 4.0))
    assert float(prior.variance) == pytest.approx(2e-4, rel=0.03)
    assert float(prior.degrees_of_freedom) == pytest.approx(10.0, rel=0.1)


def test_prior_is_certain_when_all_variances_are_one() -> None:
    rng = np.random.default_rng(4)
    seen = 3e-4 * rng.chisquare(4.0, size=20_000) / 4.0
    prior = fit_variance_prior(seen, np.full(seen.size, 4.0))
    assert float(prior.degrees_of_freedom) > 60
    assert float(prior.variance) == pytest.approx(3e-4, rel=0.02)


def test_variances_that_are_all_alike_need_no_bound() -> None:
    prior = fit_variance_prior(np.full(5, 4e-4), np.full(5, 4.0))
    assert float(prior.degrees_of_freedom) == np.inf
    posterior = correlated_t(BETTER - WORSE, folds=5, prior=prior)
    assert float(posterior.variance) == pytest.approx(float(prior.variance))
    # no uncertainty about the variance is left: a normal distribution, 97.5 % of it below 1.96
    assert float(posterior.quantile(0.975)) == pytest.approx(0.016 + 1.959964 * float(posterior.scale))


def test_prior_without_usable_variances_changes_nothing() -> None:
    prior = fit_variance_prior(np.array([0.0, np.nan]), np.array([4.0, 0.0]))
    plain, shrunk = correlated_t(BETTER - WORSE, 5), correlated_t(BETTER - WORSE, 5, prior)
    assert float(shrunk.scale) == float(plain.scale)
    assert float(shrunk.degrees_of_freedom) == float(plain.degrees_of_freedom)


def test_two_trials_are_not_shrunk() -> None:
    pairs = pairwise(np.stack([WORSE, BETTER]), folds=5)
    assert float(pairs.mean[1, 0]) == pytest.approx(0.016)
    assert float(pairs.scale[1, 0]) == pytest.approx(np.sqrt(58.5e-6))
    assert float(pairs.degrees_of_freedom[1, 0]) == 4


def test_only_what_trainings_contribute_is_correlated() -> None:
    # scale^2 = (1/5 + 1/2 * 1/4) * 130e-6 where trainings contribute half, 1/5 * 130e-6 where they contribute nothing
    half = pairwise(np.stack([WORSE, BETTER]), folds=5, training_share=0.5)
    assert float(half.scale[1, 0]) ** 2 == pytest.approx(42.25e-6)
    assert float(half.lasting[1, 0]) == pytest.approx(16.25e-6)
    nothing = pairwise(np.stack([WORSE, BETTER]), folds=5, training_share=0.0)
    assert float(nothing.scale[1, 0]) ** 2 == pytest.approx(26e-6)


def test_pairs_never_have_more_freedom_than_the_table() -> None:
    rng = np.random.default_rng(5)
    pairs = pairwise(0.8 + 0.01 * rng.standard_normal((3, 5)), folds=5)
    # three trials, five columns: (3 - 1) * (5 - 1) = 8 residual degrees of freedom
    assert pairs.degrees_of_freedom.max() <= 8


def test_identical_trials_inherit_the_noise_of_the_others() -> None:
    rng = np.random.default_rng(6)
    scores = 0.8 + 0.01 * rng.standard_normal((6, 5))
    scores[1] = scores[0]
    pairs = pairwise(scores, folds=5)
    assert 0 < pairs.scale[0, 1] < pairs.scale[2, 3] * 2


def test_studies_on_leading_axes_do_not_see_each_other() -> None:
    rng = np.random.default_rng(7)
    scores = 0.8 + 0.01 * rng.standard_normal((4, 6, 5))
    scores[2, 3, 1:] = np.nan
    together = pairwise(scores, folds=5)
    for study in range(4):
        alone = pairwise(scores[study], folds=5)
        np.testing.assert_allclose(together.scale[study], alone.scale)
        np.testing.assert_allclose(together.degrees_of_freedom[study], alone.degrees_of_freedom)


def test_repeats_take_away_what_does_not_last() -> None:
    # scale^2 after 20 cells: (1/20 + 1/4) * 130e-6, of which 1/4 * 130e-6 lasts
    posterior = correlated_t(BETTER - WORSE, folds=5)
    assert float(posterior.lasting) == pytest.approx(32.5e-6)
    assert float(posterior.scale_after(20)) == pytest.approx(np.sqrt(39e-6))
    assert float(posterior.scale_after(3)) == float(posterior.scale)


@given(st.floats(min_value=1e-3, max_value=1e3))
def test_inverse_trigamma_inverts(value: float) -> None:
    assert float(special.polygamma(1, inverse_trigamma(np.array(value)))) == pytest.approx(value, rel=1e-6)


@given(
    st.lists(st.floats(min_value=-0.2, max_value=0.2), min_size=2, max_size=20),
    st.integers(min_value=2, max_value=10),
    st.floats(min_value=0.0, max_value=0.1),
)
def test_posterior_of_the_opposite_difference_mirrors(values: list[float], folds: int, margin: float) -> None:
    one, other = correlated_t(np.array(values), folds), correlated_t(-np.array(values), folds)
    if float(one.scale) > 0:
        mirrored = 1 - float(other.probability_at_most(-margin))
        assert float(one.probability_at_most(margin)) == pytest.approx(mirrored, abs=1e-9)
    assert float(one.probability_at_most(margin)) <= float(one.probability_at_most(margin + 0.01)) + 1e-12
