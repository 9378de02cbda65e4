"""The fit of the model of the learning rate (:mod:`rates`): regularised least squares of scores and log losses.

What is observed of a cell scatters by what trainings of one setting differ by: little at the top; much on the cliffs to
both sides, where one training learns and the next does not. There its variance is, as of a count, k (1 - k) of what
can be learned, k the share kept; the weights that follow from that are found along with the fit (McCullagh and Nelder
1989, quasi-likelihood). Without them a single training that collapsed would be taken for the place of the cliff.

The cliffs make the objective flat far away, and what taught nothing may have had too low or too high a rate: the fit is
begun from several places, and every minimum is an explanation with a probability (its posterior mass, by Laplace's
approximation).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from lora_search.statistics.comparison import Array
from lora_search.statistics.rate_shape import DEVIATION, MEAN, MU, SHIFT, SIZE, SLOPES, design, drop

_TOP_MEAN, _TOP_DEVIATION, _TREND_DEVIATION, _FOLD_DEVIATION = 0.9, 0.08, 0.05, 0.15
NOISE = 0.07
"""Of one cell, in shares of what can be learned; where the residuals show more, that is taken."""
_LUCK = ((0.2, 0.6), (0.05, 0.4))
"""Variance on the cliffs (below, above) of score and log loss, in units of k (1 - k), of which it would be 1 if a
training learned all or nothing."""
_CHANNELS = 2
_STEPS, _MOST_DAMPING = 40, 1e9
_ROUGHLY, _CLOSELY = 1e-2, 1e-5
"""Gains, in units of the posterior's logarithm, after which a descent is at its end."""
_ROUGH_WEIGHINGS, _WEIGHINGS, _SAME_WEIGHTS = 2, 12, 0.05
_MOST_SETTLED, _FEW = 3, 40
"""Minima looked for; of more adapters than a few one, which so many cells leave."""
_ALIKE = 0.2
"""Distance of shapes, in standard deviations beforehand, below which one start will do."""
_CENTRES = (-1.5, -0.75, 0.0, 0.75, 1.5)
_STEEPER = (0.0, 1.5)
"""Standard deviations of the prior by which the dependence on the adapter is steeper, to begin from."""
_LEAST_PROBABLE = 0.01


@dataclass(frozen=True)
class Minimum:
    """An explanation of what was observed.

    Attributes:
        parameters: at the minimum. scatter: ``(channels, cells)`` standard deviation of what is observed, there.
        excess: the variance of a cell at the top in units of ``NOISE`` squared, at least 1.
        covariance: of the parameters. mass: logarithm of its posterior mass, up to what all share.
    """

    parameters: Array
    scatter: Array
    excess: float
    covariance: Array
    mass: float

    @property
    def shape(self) -> Array:
        return self.parameters[:SIZE]


class Problem:
    """Parameters are the shape, then for each channel a level, four trends, a deviation per adapter seen and an effect
    per column.

    Args:
        features: ``(adapters, 4)``.
        values: ``(channels, cells)`` scaled score and log loss, NaN where there is none.
        rows: ``(cells,)`` adapter of each. log_rate: from the centre. column: of each.
    """

    def __init__(
        self, features: Array, values: Array, rows: NDArray[np.int64], log_rate: Array, column: NDArray[np.int64]
    ) -> None:
        self.features, self.values, self.rows, self.log_rate = features, values, rows, log_rate
        self.seen, self.member = np.unique(rows, return_inverse=True)
        self.columns, self.place = np.unique(column, return_inverse=True)
        self.known = ~np.isnan(values)
        self.trends = features - features.mean(axis=0)
        self.per_channel = 1 + 4 + len(self.seen) + len(self.columns)
        linear_mean = np.zeros(self.per_channel)
        linear_mean[0] = _TOP_MEAN
        deviation = np.concatenate(
            [
                [0.2],
                np.full(4, _TREND_DEVIATION),
                np.full(len(self.seen), _TOP_DEVIATION),
                np.full(len(self.columns), _FOLD_DEVIATION),
            ]
        )
        self.prior_mean = np.concatenate([MEAN, *[linear_mean] * _CHANNELS])
        self.prior_deviation = np.concatenate([DEVIATION, *[deviation] * _CHANNELS])
        self.basis = np.concatenate(
            [np.ones((len(rows), 1)), self.trends[rows], np.eye(len(self.seen))[self.member]], axis=1
        )
        self.fold_basis = np.eye(len(self.columns))[self.place]

    def parts(self, parameters: Array) -> list[Array]:
        """Of each channel."""
        return [
            parameters[SIZE + channel * self.per_channel : SIZE + (channel + 1) * self.per_channel]
            for channel in range(_CHANNELS)
        ]

    def _away(self, shape: Array, channel: int) -> Array:
        best = (design(self.features) @ shape)[self.rows]
        # log loss is lowest a little below the rate of the best score: overconfidence costs it more
        return np.asarray(self.log_rate - best + (shape[SHIFT] if channel else 0.0))

    def residuals(self, parameters: Array, scatter: Array) -> Array:
        """In standard deviations: of what is observed, then of the parameters from what is known beforehand."""
        shape, found = parameters[:SIZE], []
        inner = self.basis.shape[1]
        for channel, part in enumerate(self.parts(parameters)):
            fitted = (self.basis @ part[:inner]) * (1.0 - drop(self._away(shape, channel), shape)[0])
            fitted = fitted + self.fold_basis @ part[inner:]
            gap = (self.values[channel] - fitted) / scatter[channel]
            found.append(np.where(self.known[channel], gap, 0.0))
        return np.concatenate([*found, (parameters - self.prior_mean) / self.prior_deviation])

    def jacobian(self, parameters: Array, scatter: Array) -> Array:
        """Of the residuals."""
        shape, blocks = parameters[:SIZE], []
        by_optimum = design(self.features)[self.rows]
        inner = self.basis.shape[1]
        for channel, part in enumerate(self.parts(parameters)):
            lost, by_distance, by_sides = drop(self._away(shape, channel), shape)
            level = self.basis @ part[:inner]
            by_shape = by_optimum * (by_distance * level)[:, None]
            for name, derivative in by_sides.items():
                by_shape[:, name] = -derivative * level
            by_shape[:, SHIFT] = -by_distance * level if channel else 0.0
            block = np.zeros((len(self.rows), len(parameters)))
            block[:, :SIZE] = by_shape
            first = SIZE + channel * self.per_channel
            block[:, first : first + inner] = self.basis * (1.0 - lost)[:, None]
            block[:, first + inner : first + self.per_channel] = self.fold_basis
            block[~self.known[channel]] = 0.0
            blocks.append(-block / scatter[channel][:, None])
        return np.concatenate([*blocks, np.diag(1.0 / self.prior_deviation)])

    def scatter(self, parameters: Array, excess: float) -> Array:
        """Standard deviation of what is observed of each cell, ``(channels, cells)``."""
        shape, found = parameters[:SIZE], []
        for channel in range(_CHANNELS):
            away = self._away(shape, channel)
            lost = drop(away, shape)[0]
            found.append(NOISE**2 + np.where(away < 0, *_LUCK[channel]) * lost * (1.0 - lost))
        return np.sqrt(excess * np.array(found))

    def minima(self, start: Array | None) -> list[Minimum]:
        """The explanations there are, the most probable first.

        Args:
            start: a shape near which the only minimum wanted is.
        """
        if not len(self.rows):
            return [self._minimum(self.prior_mean, np.zeros((_CHANNELS, 0)), 1.0)]
        found: list[Minimum] = []
        for begin in self._starts(start):
            one = self._settled(begin)
            if all(_apart(one.parameters, other.parameters) for other in found):
                found.append(one)
        return sorted(found, key=lambda one: -one.mass)

    def _starts(self, start: Array | None) -> list[Array]:
        """Where to begin: near the lowest of what is roughly found from everywhere."""
        begin = self.prior_mean.copy()
        if start is not None:
            begin[:SIZE] = start
            return [begin]
        few = len(self.seen) <= _FEW
        rough: list[tuple[float, Array]] = []
        for steeper, centre in product(_STEEPER if few else _STEEPER[:1], _CENTRES):
            candidate = begin.copy()
            candidate[SLOPES] += steeper * DEVIATION[SLOPES]
            candidate[MU] = centre
            for _ in range(_ROUGH_WEIGHINGS):
                candidate = self._descend(candidate, self.scatter(candidate, 1.0), _ROUGHLY)
            rough.append((self._cost(candidate, self.scatter(candidate, 1.0)), candidate))
        kept: list[Array] = []
        for _, candidate in sorted(rough, key=lambda one: one[0]):
            if len(kept) < (_MOST_SETTLED if few else 1) and all(_apart(candidate, other) for other in kept):
                kept.append(candidate)
        return kept

    def _settled(self, parameters: Array) -> Minimum:
        """A minimum near these parameters, with the scatter that follows from it."""
        scatter, excess = self.scatter(parameters, 1.0), 1.0
        for _ in range(_WEIGHINGS):
            parameters = self._descend(parameters, scatter, _CLOSELY)
            before, scatter = scatter, self.scatter(parameters, excess)
            excess *= max(self._excess(parameters, scatter), 1.0 / excess)
            scatter = self.scatter(parameters, excess)
            if np.abs(np.log(scatter / before)).max() < _SAME_WEIGHTS:
                break
        return self._minimum(parameters, scatter, excess)

    def _minimum(self, parameters: Array, scatter: Array, excess: float) -> Minimum:
        jacobian = self.jacobian(parameters, scatter)
        covariance = np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64)
        mass = 0.5 * float(np.linalg.slogdet(covariance)[1]) - self._cost(parameters, scatter)
        return Minimum(parameters, scatter, excess, covariance, mass)

    def _cost(self, parameters: Array, scatter: Array) -> float:
        residuals = self.residuals(parameters, scatter)
        return 0.5 * float(residuals @ residuals) + float(np.log(scatter[self.known]).sum())

    def _descend(self, parameters: Array, scatter: Array, tolerance: float) -> Array:
        """A minimum near these parameters, the scatter being what it is.

        Levenberg and Marquardt's method on the normal equations, which the prior keeps well conditioned: that is ten
        times as fast for hundreds of adapters as scipy's solvers, which decompose the Jacobian.
        """
        residuals = self.residuals(parameters, scatter)
        cost, damping = 0.5 * float(residuals @ residuals), 1e-3
        for _ in range(_STEPS):
            jacobian = self.jacobian(parameters, scatter)
            gradient, curvature = jacobian.T @ residuals, jacobian.T @ jacobian
            while True:
                damped = curvature + damping * np.diag(np.diag(curvature))
                step = linalg.cho_solve(linalg.cho_factor(damped, check_finite=False), -gradient, check_finite=False)
                there = self.residuals(parameters + step, scatter)
                its_cost = 0.5 * float(there @ there)
                if its_cost < cost or damping > _MOST_DAMPING:
                    break
                damping *= 4.0
            gained = cost - its_cost
            if not gained > 0:
                break
            parameters, residuals, cost, damping = parameters + step, there, its_cost, damping / 8.0
            if gained < tolerance:
                break
        return parameters

    def _excess(self, parameters: Array, scatter: Array) -> float:
        """Residual variance of a cell in units of what was assumed; the prior holds parameters, which then cost fewer
        degrees of freedom than there are of them."""
        rows = _CHANNELS * len(self.rows)
        jacobian = self.jacobian(parameters, scatter)
        data = jacobian[:rows]
        used = float(np.einsum("ni,ij,nj->", data, np.linalg.inv(jacobian.T @ jacobian), data))
        squares = float((self.residuals(parameters, scatter)[:rows] ** 2).sum())
        return squares / max(float(self.known.sum()) - used, 1.0)

    def tops(self) -> tuple[Array, Array]:
        """Scaled score of every adapter at its best rate: its derivative by the parameters, and its variance where the
        adapter was not seen."""
        found = np.zeros((len(self.features), len(self.prior_mean)))
        found[:, SIZE] = 1.0
        found[:, SIZE + 1 : SIZE + 5] = self.trends
        found[self.seen, SIZE + 5 + np.arange(len(self.seen))] = 1.0
        unseen = np.full(len(self.features), _TOP_DEVIATION**2)
        unseen[self.seen] = 0.0
        return found, unseen


def _apart(one: Array, other: Array) -> bool:
    return bool(np.abs((one[:SIZE] - other[:SIZE]) / DEVIATION).max() > _ALIKE)


def probable(minima: list[Minimum]) -> list[tuple[float, Minimum]]:
    """(probability, explanation) of those that are not next to impossible beside the most probable, first."""
    weights = np.exp([one.mass - minima[0].mass for one in minima])
    kept = [(float(weight), one) for weight, one in zip(weights, minima, strict=True) if weight >= _LEAST_PROBABLE]
    total = sum(weight for weight, _ in kept)
    return [(weight / total, one) for weight, one in kept]
