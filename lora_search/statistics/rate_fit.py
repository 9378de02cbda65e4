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

_TOP_MEAN, _TREND_DEVIATION, _FOLD_DEVIATION = 0.9, 0.05, 0.15
_NOISE, _OWN = 0.07, 0.08
"""Standard deviations beforehand, in shares of what can be learned: of one cell at the top, and between the tops of
adapters, trends aside. How much can be learned differs from task to task far more than either does, so what a channel
shows outweighs them in time."""
_FREEDOM = 5.0
"""Degrees of freedom that each of these is worth."""
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
class Spreads:
    """By how much things differ, ``(channels,)`` each, in shares of what can be learned.

    Attributes:
        noise: standard deviation of a cell at the top. freedom: degrees of freedom behind it.
        own: standard deviation of the tops of adapters, trends aside.
    """

    noise: Array
    freedom: Array
    own: Array

    @property
    def surprise(self) -> float:
        """Minus the logarithm of their density beforehand (scaled inverse chi-square), up to a constant."""
        return sum(
            float((_FREEDOM / 2.0 * (np.log(found**2) + known**2 / found**2)).sum())
            for found, known in ((self.noise, _NOISE), (self.own, _OWN))
        )


_BEFOREHAND = Spreads(*(np.full(_CHANNELS, known) for known in (_NOISE, _FREEDOM, _OWN)))


@dataclass(frozen=True)
class Minimum:
    """An explanation of what was observed.

    Attributes:
        parameters: at the minimum.
        spreads: as they are found there.
        covariance: of the parameters. mass: logarithm of its posterior mass, up to what all share.
    """

    parameters: Array
    spreads: Spreads
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
                np.full(len(self.seen), _OWN),
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

    def _prior(self, own: Array) -> Array:
        """Standard deviations of the parameters beforehand, where adapters differ by so much."""
        deviation = self.prior_deviation.copy()
        for channel in range(_CHANNELS):
            deviation[self._own(channel)] = own[channel]
        return deviation

    def _own(self, channel: int) -> slice:
        """Where the parameters are of single adapters."""
        first = SIZE + channel * self.per_channel + 5
        return slice(first, first + len(self.seen))

    def residuals(self, parameters: Array, scatter: Array, prior: Array) -> Array:
        """In standard deviations: of what is observed, then of the parameters from what is known beforehand."""
        shape, found = parameters[:SIZE], []
        inner = self.basis.shape[1]
        for channel, part in enumerate(self.parts(parameters)):
            fitted = (self.basis @ part[:inner]) * (1.0 - drop(self._away(shape, channel), shape)[0])
            fitted = fitted + self.fold_basis @ part[inner:]
            gap = (self.values[channel] - fitted) / scatter[channel]
            found.append(np.where(self.known[channel], gap, 0.0))
        return np.concatenate([*found, (parameters - self.prior_mean) / prior])

    def jacobian(self, parameters: Array, scatter: Array, prior: Array) -> Array:
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
        return np.concatenate([*blocks, np.diag(1.0 / prior)])

    def scatter(self, parameters: Array, noise: Array) -> Array:
        """Standard deviation of what is observed of each cell, ``(channels, cells)``."""
        shape, found = parameters[:SIZE], []
        for channel in range(_CHANNELS):
            away = self._away(shape, channel)
            lost = drop(away, shape)[0]
            found.append(noise[channel] ** 2 + np.where(away < 0, *_LUCK[channel]) * lost * (1.0 - lost))
        return np.asarray(np.sqrt(np.array(found)))

    def minima(self, start: Array | None) -> list[Minimum]:
        """The explanations there are, the most probable first.

        Args:
            start: a shape near which the only minimum wanted is.
        """
        if not len(self.rows):
            return [self._minimum(self.prior_mean, _BEFOREHAND)]
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
                candidate = self._descend(candidate, _BEFOREHAND, _ROUGHLY)
            rough.append((self._cost(candidate, _BEFOREHAND), candidate))
        kept: list[Array] = []
        for _, candidate in sorted(rough, key=lambda one: one[0]):
            if len(kept) < (_MOST_SETTLED if few else 1) and all(_apart(candidate, other) for other in kept):
                kept.append(candidate)
        return kept

    def _settled(self, parameters: Array) -> Minimum:
        """A minimum near these parameters, with the spreads that follow from it."""
        spreads = _BEFOREHAND
        scatter = self.scatter(parameters, spreads.noise)
        for _ in range(_WEIGHINGS):
            parameters = self._descend(parameters, spreads, _CLOSELY)
            before, spreads = scatter, self._spreads(parameters, spreads)
            scatter = self.scatter(parameters, spreads.noise)
            if np.abs(np.log(scatter / before)).max() < _SAME_WEIGHTS:
                break
        return self._minimum(parameters, spreads)

    def _minimum(self, parameters: Array, spreads: Spreads) -> Minimum:
        scatter = self.scatter(parameters, spreads.noise)
        covariance = self._covariance(self.jacobian(parameters, scatter, self._prior(spreads.own)))
        mass = 0.5 * float(np.linalg.slogdet(covariance)[1]) - self._cost(parameters, spreads)
        return Minimum(parameters, spreads, covariance, mass)

    def _covariance(self, jacobian: Array) -> Array:
        return np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64)

    def _cost(self, parameters: Array, spreads: Spreads) -> float:
        """Minus the logarithm of the posterior."""
        scatter, prior = self.scatter(parameters, spreads.noise), self._prior(spreads.own)
        residuals = self.residuals(parameters, scatter, prior)
        widths = float(np.log(scatter[self.known]).sum() + np.log(prior).sum())
        return 0.5 * float(residuals @ residuals) + widths + spreads.surprise

    def _descend(self, parameters: Array, spreads: Spreads, tolerance: float) -> Array:
        """A minimum near these parameters, the scatter being what it is there.

        Levenberg and Marquardt's method on the normal equations, which the prior keeps well conditioned: that is ten
        times as fast for hundreds of adapters as scipy's solvers, which decompose the Jacobian.
        """
        scatter, prior = self.scatter(parameters, spreads.noise), self._prior(spreads.own)
        residuals = self.residuals(parameters, scatter, prior)
        cost, damping = 0.5 * float(residuals @ residuals), 1e-3
        for _ in range(_STEPS):
            jacobian = self.jacobian(parameters, scatter, prior)
            gradient, curvature = jacobian.T @ residuals, jacobian.T @ jacobian
            while True:
                damped = curvature + damping * np.diag(np.diag(curvature))
                step = linalg.cho_solve(linalg.cho_factor(damped, check_finite=False), -gradient, check_finite=False)
                there = self.residuals(parameters + step, scatter, prior)
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

    def _spreads(self, parameters: Array, spreads: Spreads) -> Spreads:
        """What residuals and adapters show of the spreads, and what is known beforehand (the EM step of Dempster, Laird
        and Rubin 1977).

        Cells count as far as noise is what they scatter by, so that those on the cliffs do not speak for the top; the
        prior holds parameters, which then cost fewer degrees of freedom than there are of them.
        """
        scatter, prior = self.scatter(parameters, spreads.noise), self._prior(spreads.own)
        jacobian, count = self.jacobian(parameters, scatter, prior), len(self.rows)
        covariance, data = self._covariance(jacobian), jacobian[: _CHANNELS * count]
        used = np.einsum("ni,ij,nj->n", data, covariance, data).reshape(_CHANNELS, count)
        squares = (self.residuals(parameters, scatter, prior)[: _CHANNELS * count] ** 2).reshape(_CHANNELS, count)
        weight = np.where(self.known, (spreads.noise[:, None] / scatter) ** 2, 0.0)
        freedom = _FREEDOM + np.maximum((weight * (1.0 - used)).sum(axis=1), 0.0)
        shown = spreads.noise**2 * (weight * squares).sum(axis=1)
        own = np.array(
            [(parameters[mine] ** 2 + np.diagonal(covariance)[mine]).sum() for mine in map(self._own, range(_CHANNELS))]
        )
        return Spreads(
            np.sqrt((_FREEDOM * _NOISE**2 + shown) / freedom),
            freedom,
            np.sqrt((_FREEDOM * _OWN**2 + own) / (_FREEDOM + len(self.seen))),
        )

    def tops(self, own: float) -> tuple[Array, Array]:
        """Scaled score of every adapter at its best rate: its derivative by the parameters, and its variance where the
        adapter was not seen, adapters differing by ``own``."""
        found = np.zeros((len(self.features), len(self.prior_mean)))
        found[:, SIZE] = 1.0
        found[:, SIZE + 1 : SIZE + 5] = self.trends
        found[self.seen, SIZE + 5 + np.arange(len(self.seen))] = 1.0
        unseen = np.full(len(self.features), own**2)
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
