"""Metrics of one number per example: an error in the label's own unit, and two correlations, which have none.

``truth`` is (n,), the number of each example; ``predicted`` is (n, 1), in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_search.metrics.metric import Array, Floats, Unit, share


@dataclass(frozen=True)
class RootMeanSquaredError:
    """Square root of the mean squared error, in the unit of the label."""

    name: str = "rmse"
    title: str = "RMSE"
    unit: Unit = "label units"
    greater_is_better: bool = False
    bounds: tuple[float, float] = (0.0, float("inf"))
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Squared errors, and examples."""
        squares = (predicted[:, 0].astype(np.float64) - truth) ** 2
        return np.stack([squares, np.ones_like(squares)], axis=1)

    def score(self, counts: Floats) -> Floats:
        return np.asarray(np.sqrt(share(np.maximum(counts[..., 0], 0.0), counts[..., 1])))

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """The standard deviation: what always answering the mean scores."""
        return float(np.std(truth))


@dataclass(frozen=True)
class PearsonCorrelation:
    """Linear correlation of answers and truth; 0 where either is constant."""

    name: str = "pearson"
    title: str = "Pearson correlation"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (-1.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Examples, and sums of both, of their squares and of their product."""
        x, y = predicted[:, 0].astype(np.float64), np.asarray(truth, dtype=np.float64)
        return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)

    def score(self, counts: Floats) -> Floats:
        size, x, y, xx, yy, xy = np.moveaxis(counts, -1, 0)
        return _correlation(size * xy - x * y, _spread(size * xx, x * x, size), _spread(size * yy, y * y, size))

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0: what ignores the examples correlates with nothing."""
        return 0.0


@dataclass(frozen=True)
class SpearmanCorrelation:
    """Correlation of the ranks of answers and truth, ties at their mean rank; 0 where either is constant.

    A rank depends on all examples that are scored together, so no sum is exact both of them and of any part of them.
    With s the signs of pairwise differences and weights w, the covariance of ranks is the cubic form

        A(w) = sum over i, j, k of w_i w_j w_k s(x_i - x_j) s(y_i - y_k) / 4,

    whose share a(w) = A(w) / |w|^2 is of degree 1: its derivatives by the weights, at 1, add up to it (Euler). They are
    the counts. So the score of all examples counted together is exact, and that of weights near those is right to first
    order: Efron's infinitesimal jackknife.
    """

    name: str = "spearman"
    title: str = "Spearman correlation"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (-1.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """What each example adds to the covariance of ranks and to both variances."""
        x, y = predicted[:, 0].astype(np.float64), np.asarray(truth, dtype=np.float64)
        ranks = _Ranks(x), _Ranks(y)
        return np.stack([_shares(*ranks), _shares(ranks[0], ranks[0]), _shares(ranks[1], ranks[1])], axis=1)

    def score(self, counts: Floats) -> Floats:
        covariance, x, y = np.moveaxis(counts, -1, 0)
        return _correlation(covariance, x, y)

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0: what ignores the examples is in no order."""
        return 0.0


class _Ranks:
    """Some numbers by their order alone.

    Attributes:
        centred: (n,) half the sum over all others of the sign of the difference: mean ranks, around 0.
    """

    def __init__(self, values: Floats) -> None:
        _, self._place = np.unique(values, return_inverse=True)
        self.centred = self.signs_into(np.ones(len(values))) / 2.0

    def signs_into(self, weights: Floats) -> Floats:
        """(n,), for each number the sum over all others of their weights, negative where these are greater."""
        of_value = np.bincount(self._place, weights)
        up_to = np.cumsum(of_value)
        return np.asarray((2.0 * up_to - of_value - up_to[-1])[self._place])


def _shares(x: _Ranks, y: _Ranks) -> Floats:
    """(n,), the derivative of a(w) by the weight of each example, at 1."""
    size = float(len(x.centred))
    products = x.centred * y.centred
    derivative = products - (x.signs_into(y.centred) + y.signs_into(x.centred)) / 2.0
    return np.asarray(derivative / size**2 - 2.0 * products.sum() / size**3)


_DUST = 1e-12
"""A variance that is less than this of the mean square is rounding."""


def _spread(squares: Floats, square: Floats, size: Floats) -> Floats:
    """A variance as a difference of two sums, 0 where only rounding is left."""
    return np.where(squares - square > _DUST * np.abs(squares), squares - square, 0.0)


def _correlation(covariance: Floats, x: Floats, y: Floats) -> Floats:
    both = np.sqrt(np.maximum(x, 0.0)) * np.sqrt(np.maximum(y, 0.0))
    return np.clip(np.where(both > 0, covariance / np.where(both > 0, both, 1.0), 0.0), -1.0, 1.0)
