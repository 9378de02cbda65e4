"""Fieller's bounds of a ratio, by hand, by their definition and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_search.statistics.ratio import ratio_interval

estimates = st.floats(-10, 10)
deviations = st.floats(0.01, 3)
correlations = st.floats(-1, 1)


def test_by_hand() -> None:
    # (1 - 2 theta)^2 = 4 (0.01 + 0.01 theta^2): 3.96 theta^2 - 4 theta + 0.96 = 0
    low, high = ratio_interval(1.0, 2.0, variances=(0.01, 0.01), covariance=0.0, t=2.0) or (math.nan, math.nan)
    root = math.sqrt(16 - 4 * 3.96 * 0.96)
    assert (low, high) == pytest.approx(((4 - root) / 7.92, (4 + root) / 7.92))


def test_without_noise_it_is_the_ratio() -> None:
    assert ratio_interval(3.0, 4.0, variances=(0.0, 0.0), covariance=0.0, t=2.0) == (0.75, 0.75)


def test_two_estimates_that_are_one_have_a_ratio_of_one() -> None:
    assert ratio_interval(2.0, 2.0, variances=(0.25, 0.25), covariance=0.25, t=2.0) == pytest.approx((1.0, 1.0))


def test_what_cannot_be_told_from_nothing_has_no_ratio() -> None:
    assert ratio_interval(1.0, 1.0, variances=(0.01, 0.26), covariance=0.0, t=2.0) is None
    assert ratio_interval(1.0, 0.0, variances=(0.0, 0.0), covariance=0.0, t=2.0) is None
    assert ratio_interval(1.0, 1.0, variances=(0.01, math.inf), covariance=0.0, t=2.0) is None
    assert ratio_interval(1.0, math.nan, variances=(0.01, 0.01), covariance=0.0, t=2.0) is None


@given(estimates, estimates, deviations, deviations, correlations, st.floats(1, 3))
def test_the_bounds_are_where_the_difference_stops_being_noise(a, b, first, second, correlation, t) -> None:
    covariance = correlation * first * second
    found = ratio_interval(a, b, variances=(first**2, second**2), covariance=covariance, t=t)
    assert (found is None) == (b**2 <= t**2 * second**2)
    assume(found is not None)
    low, high = found
    assert low <= a / b + 1e-9
    assert a / b <= high + 1e-9

    def distance(theta: float) -> float:
        noise = first**2 - 2 * theta * covariance + theta**2 * second**2
        return (a - theta * b) ** 2 - t**2 * noise

    size = 1e-7 * (a**2 + t**2 * first**2 + max(low**2, high**2) * (b**2 + t**2 * second**2))
    assert distance(low) == pytest.approx(0.0, abs=size)
    assert distance(high) == pytest.approx(0.0, abs=size)
    assert distance((low + high) / 2) <= size


@given(estimates, st.floats(2, 10), deviations, st.floats(0.01, 0.5), correlations, st.floats(0.1, 10))
def test_it_does_not_depend_on_the_unit(a, b, first, second, correlation, factor) -> None:
    def bounds(unit: float) -> tuple[float, float] | None:
        variances = ((unit * first) ** 2, (unit * second) ** 2)
        shared = unit**2 * correlation * first * second
        return ratio_interval(unit * a, unit * b, variances=variances, covariance=shared, t=2.0)

    assert bounds(factor) == pytest.approx(bounds(1.0), rel=1e-6, abs=1e-6)


@given(estimates, st.floats(2, 10), deviations, st.floats(0.01, 0.5), correlations)
def test_more_sureness_means_wider_bounds(a, b, first, second, correlation) -> None:
    arguments = {"variances": (first**2, second**2), "covariance": correlation * first * second}
    narrow, wide = (ratio_interval(a, b, **arguments, t=t) for t in (1.0, 2.0))
    assert wide[0] <= narrow[0] + 1e-9
    assert narrow[1] <= wide[1] + 1e-9


def test_bounds_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    covariance = np.array([[0.04, 0.02], [0.02, 0.05]])
    held = []
    for a, b in random.multivariate_normal([0.9, 1.0], covariance, size=4000):
        found = ratio_interval(a, b, variances=(0.04, 0.05), covariance=0.02, t=1.959964)
        # where there is no interval, everything is held
        held.append(found is None or found[0] <= 0.9 <= found[1])
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)
