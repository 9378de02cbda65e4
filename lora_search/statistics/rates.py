"""How the best learning rate depends on the adapter: one small model for all cells of a study.

A learning rate is a nuisance: two adapters are compared each at its own best rate. To look for that rate adapter by
adapter would cost a grid per adapter; but the best rates are a smooth function of what an adapter is, so every cell
of the study tells something about all of them. With x = log rate, the optimum of an adapter is

    x* = mu - b . features,   features = log rank, log (adapted layers), log (modules per layer), log scale,

where the scale is alpha / rank (rsLoRA: alpha / sqrt(rank)). What is known beforehand enters as a normal prior on every
coefficient: with Adam, scale and rate are nearly one dimension, and small ranks and few layers want larger rates (Hayou
et al. 2024, LoRA+; Biderman et al. 2024; Schulman et al. 2025, LoRA Without Regret). Away from the optimum an adapter
keeps a share of what it can learn,

    y = top (1 - drop(x - x*)) + fold,   drop(z) = 1 - exp(-(|z| / width)^power),

flat at the top, a cliff where nothing is learned in the steps there are (below) and a slope where training becomes
unstable or overfits (above), each side with a width of its own. y is scaled: 0 is the score of knowing nothing, 1 the
best seen. Two things are observed of every cell, its score and its log loss, which is less noisy by far and tells on
which side of the optimum a rate lies; the optimum in log loss may lie a little beside that in score (``shift``).

All is fitted at once by regularised least squares (the maximum a posteriori under normal noise, soft in the tails), and
the curvature there says how sure the optimum of each adapter is.

numpy and scipy only; knows neither trials nor studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from lora_search.statistics.comparison import Array

FEATURES = ("log rank", "log layers", "log modules per layer", "log scale")

_SHAPE = (
    # name, prior mean, prior standard deviation
    ("mu", 0.0, 1.2),
    ("log rank", 0.40, 0.25),
    ("log layers", 0.35, 0.25),
    ("log modules per layer", 0.30, 0.25),
    ("log scale", 0.80, 0.25),
    ("log width below", 0.25, 0.30),
    ("log power below", 1.10, 0.30),
    ("log width above", 0.90, 0.40),
    ("shift", 0.15, 0.25),
)
_MEAN = np.array([mean for _, mean, _ in _SHAPE])
_DEVIATION = np.array([deviation for *_, deviation in _SHAPE])
_MU, _SLOPES, _BELOW, _POWER, _ABOVE, _SHIFT = 0, slice(1, 5), 5, 6, 7, 8
_POWER_ABOVE = 2.0

_TOP_MEAN, _TOP_DEVIATION, _TREND_DEVIATION, _FOLD_DEVIATION = 0.9, 0.08, 0.05, 0.15
_NOISE = 0.07
"""Of one cell, in shares of what can be learned; where the residuals show more, that is taken."""
_CHANNELS = 2
_NEXT_TO_NOTHING = 0.02
"""Share of what can be learned, scored by a cell that knows next to nothing."""
LEAST = 1e-3
"""A difference of scores, or of losses, below which there is none."""
_STEPS, _TOLERANCE, _MOST_DAMPING = 40, 1e-8, 1e9


_REFERENCE_RATE, _REFERENCE_WIDTH, _WIDTH_POWER = 8e-3, 768.0, 0.775


def prior_centre(hidden_size: int) -> float:
    """Log rate expected to suit rank 1 on one module of one layer at scale 1, before anything is trained.

    It falls with the width as in Schulman et al. 2025. The prior is wide (a factor of 3.3 per standard deviation), so
    that a handful of trainings outweighs it.
    """
    return float(np.log(_REFERENCE_RATE) + _WIDTH_POWER * np.log(_REFERENCE_WIDTH / hidden_size))


def _loss_of_nothing(stuck: NDArray[np.bool_], cells: RateCells) -> float:
    """The log loss of knowing nothing where a task cannot say it beforehand: the least of the cells that score as if
    they knew nothing, else the greatest there is.

    Args:
        stuck: ``(cells,)``, which score next to nothing. What diverged is told by its score, and has no log loss.
    """
    known = np.isfinite(cells.score) & np.isfinite(cells.log_loss)
    if not known.any():
        return float(np.log(2.0))
    return float(cells.log_loss[known & stuck].min() if (known & stuck).any() else cells.log_loss[known].max())


def adapter_features(rank: Array, parameters: Array, layers: Array, scale: Array, hidden_size: int) -> Array:
    """What the best rate depends on: ``(adapters, 4)`` in the order of ``FEATURES``.

    Args:
        rank, parameters, layers, scale: ``(adapters,)``: its rank, adapter parameters, number of adapted layers, and
            the factor in front of B A.
        hidden_size: of the model; a module of that width on both sides counts as one.
    """
    per_layer = parameters / (rank * layers * 2.0 * hidden_size)
    return np.asarray(np.log(np.stack([rank, layers, per_layer, scale], axis=1).astype(np.float64)))


@dataclass(frozen=True)
class RateCells:
    """What is observed: one entry per trained cell.

    Attributes:
        adapter: row of ``features`` of each cell.
        log_rate: natural logarithm of its learning rate.
        column: which (repeat, fold), from 0.
        score: in metric units, higher is better; minus infinity where the training diverged.
        log_loss: out-of-fold log loss, in nats; NaN where the task has none.
    """

    adapter: NDArray[np.int64]
    log_rate: Array
    column: NDArray[np.int64]
    score: Array
    log_loss: Array

    def __len__(self) -> int:
        return len(self.adapter)

    def without(self, column: int) -> RateCells:
        """All cells but those of one column."""
        kept = self.column != column
        return RateCells(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class RateModel:
    """The fitted model.

    Attributes:
        features: ``(adapters, 4)``, of the adapters it was fitted for, observed or not.
        centre: prior centre of the log rate of an adapter whose features are all 0.
        shape: the nonlinear parameters, in the order of ``_SHAPE``.
        covariance: of ``shape``.
        top: ``(adapters,)`` score at its own best rate above that of knowing nothing, in metric units.
        top_covariance: of ``top``.
        span: metric units between knowing nothing and the best seen.
        noise: of one cell's score, in metric units.
    """

    features: Array
    centre: float
    shape: Array
    covariance: Array
    top: Array
    top_covariance: Array
    span: float
    noise: float

    def optimum(self, features: Array | None = None) -> tuple[Array, Array]:
        """(log rate, its standard deviation) at which each adapter scores best."""
        design = _design(self.features if features is None else features)
        spread = np.sqrt(np.maximum(np.einsum("ai,ij,aj->a", design, self.covariance, design), 0.0))
        return self.centre + design @ self.shape, spread

    def loss(self, adapter: int, log_rate: Array | float) -> Array:
        """Expected metric units that an adapter loses at a rate against its own best, its uncertainty included."""
        best, spread = self.optimum(self.features[[adapter]])
        away = np.asarray(log_rate, dtype=np.float64)[..., None] - best[0] - spread[0] * _NODES
        share = _drop(away, self.shape)[0]
        gain = max(float(self.top[adapter]), 0.0)
        return np.asarray(gain * (share @ _WEIGHTS))


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def fit_rates(
    features: Array,
    cells: RateCells,
    *,
    nothing: float,
    nothing_log_loss: float,
    centre: float,
    start: Array | None = None,
    least: tuple[float, float] = (LEAST, LEAST),
) -> RateModel:
    """Fit the model to all cells so far; without cells it is the prior.

    Args:
        features: ``(adapters, 4)`` in the order of ``FEATURES``; adapters without a cell may be among them.
        cells: what was observed.
        nothing: score of knowing nothing of the inputs. nothing_log_loss: its log loss, in nats; infinite where that
            is not known beforehand.
        centre: log of the rate expected to suit an adapter whose features are all 0.
        start: ``shape`` to start from.
        least: differences of scores and of losses below which there is none.

    Returns:
        the model.
    """
    return _fitted(_Asked(features, cells, nothing, nothing_log_loss, centre, start, least))


class _Asked:
    """The arguments of a fit, equal where their numbers are."""

    def __init__(
        self,
        features: Array,
        cells: RateCells,
        nothing: float,
        nothing_log_loss: float,
        centre: float,
        start: Array | None,
        least: tuple[float, float],
    ) -> None:
        self.problem = _Problem.of(features, cells, nothing, nothing_log_loss, centre, least)
        self.features, self.centre, self.start = features, centre, start
        arrays = (features, *vars(cells).values(), np.array([nothing, nothing_log_loss, centre, *least]))
        parts = [*arrays, np.zeros(0) if start is None else start]
        self._key = b"|".join(str(part.shape).encode() + part.tobytes() for part in parts)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


@lru_cache(maxsize=64)  # the judge of a study, its next round and its pages ask for the same
def _fitted(asked: _Asked) -> RateModel:
    problem, features, centre = asked.problem, asked.features, asked.centre
    found = problem.solve(asked.start)
    excess = problem.excess(found)
    if excess > 1.0:
        problem.precision /= excess
        found = problem.solve(found[: len(_SHAPE)])
    covariance = problem.covariance(found)
    size = len(_SHAPE)
    by_parameter, unseen = problem.tops()
    top_covariance = by_parameter @ covariance @ by_parameter.T + np.diag(unseen)
    return RateModel(
        features=features,
        centre=centre,
        shape=found[:size],
        covariance=covariance[:size, :size],
        top=by_parameter @ found * problem.span,
        top_covariance=top_covariance * problem.span**2,
        span=problem.span,
        noise=_NOISE * max(excess, 1.0) ** 0.5 * problem.span,
    )


def _design(features: Array) -> Array:
    """Derivative of the optimum by ``shape``: ``(adapters, len(_SHAPE))``."""
    design = np.zeros((len(features), len(_SHAPE)))
    design[:, _MU] = 1.0
    design[:, _SLOPES] = -features
    return design


def _drop(away: Array, shape: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Share lost at a distance from the optimum, and its derivatives by distance and the three shape parameters."""
    below = away < 0
    width = np.exp(np.where(below, shape[_BELOW], shape[_ABOVE]))
    power = np.where(below, np.exp(shape[_POWER]), _POWER_ABOVE)
    ratio = np.maximum(np.abs(away), 1e-9) / width
    inside = ratio**power
    kept = np.exp(-inside)
    slope = kept * inside * power
    by_distance = slope / np.where(below, np.minimum(away, -1e-9), np.maximum(away, 1e-9))
    return (
        1.0 - kept,
        by_distance,
        np.where(below, -slope, 0.0),
        np.where(below, slope * np.log(ratio), 0.0),
        np.where(below, 0.0, -slope),
    )


class _Problem:
    """Least squares: parameters are the shape, then for each channel a level, four trends, a deviation per adapter
    seen and an effect per column."""

    def __init__(
        self,
        features: Array,
        values: Array,
        rows: NDArray[np.int64],
        log_rate: Array,
        column: NDArray[np.int64],
        span: float,
    ) -> None:
        self.features, self.values, self.rows, self.log_rate = features, values, rows, log_rate
        self.seen, self.member = np.unique(rows, return_inverse=True)
        self.columns, self.place = np.unique(column, return_inverse=True)
        self.span = span
        self.precision = 1.0
        spread = features - features.mean(axis=0)
        self.trends = spread
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
        self.prior_mean = np.concatenate([_MEAN, *[linear_mean] * _CHANNELS])
        self.prior_deviation = np.concatenate([_DEVIATION, *[deviation] * _CHANNELS])
        self.basis = np.concatenate(
            [
                np.ones((len(rows), 1)),
                self.trends[rows],
                np.eye(len(self.seen))[self.member],
            ],
            axis=1,
        )
        self.fold_basis = np.eye(len(self.columns))[self.place]

    @classmethod
    def of(
        cls,
        features: Array,
        cells: RateCells,
        nothing: float,
        nothing_log_loss: float,
        centre: float,
        least: tuple[float, float] = (LEAST, LEAST),
    ) -> _Problem:
        score = np.maximum(np.where(np.isfinite(cells.score), cells.score, nothing), nothing)
        best = score.max() if len(cells) else nothing + 1.0
        span = max(float(best - nothing), least[0])
        if not np.isfinite(nothing_log_loss):
            nothing_log_loss = _loss_of_nothing(score - nothing <= _NEXT_TO_NOTHING * span, cells)
        losses = np.where(np.isfinite(cells.score), cells.log_loss, nothing_log_loss)
        lowest = np.nanmin(losses) if len(cells) and np.isfinite(losses).any() else nothing_log_loss - 1.0
        room = max(float(nothing_log_loss - lowest), least[1])
        learned = np.maximum((nothing_log_loss - losses) / room, 0.0)
        values = np.stack([(score - nothing) / span, learned], axis=1)
        return cls(features, values, cells.adapter, cells.log_rate - centre, cells.column, span)

    def _parts(self, parameters: Array) -> list[Array]:
        size = len(_SHAPE)
        return [
            parameters[size + channel * self.per_channel : size + (channel + 1) * self.per_channel]
            for channel in range(_CHANNELS)
        ]

    def _away(self, shape: Array, channel: int) -> Array:
        best = (_design(self.features) @ shape)[self.rows]
        # log loss is lowest a little below the rate of the best score: overconfidence costs it more
        return np.asarray(self.log_rate - best + (shape[_SHIFT] if channel else 0.0))

    def residuals(self, parameters: Array) -> Array:
        shape, found = parameters[: len(_SHAPE)], []
        for channel, part in enumerate(self._parts(parameters)):
            inner = self.basis.shape[1]
            fitted = (self.basis @ part[:inner]) * (1.0 - _drop(self._away(shape, channel), shape)[0])
            fitted = fitted + self.fold_basis @ part[inner:]
            gap = (self.values[:, channel] - fitted) / _NOISE
            found.append(np.where(np.isnan(gap), 0.0, gap) * np.sqrt(self.precision))
        return np.concatenate([*found, (parameters - self.prior_mean) / self.prior_deviation])

    def jacobian(self, parameters: Array) -> Array:
        shape, blocks = parameters[: len(_SHAPE)], []
        design = _design(self.features)[self.rows]
        for channel, part in enumerate(self._parts(parameters)):
            inner = self.basis.shape[1]
            away = self._away(shape, channel)
            lost, by_distance, by_below, by_power, by_above = _drop(away, shape)
            level = self.basis @ part[:inner]
            by_shape = design * (by_distance * level)[:, None]
            by_shape[:, _BELOW] = -by_below * level
            by_shape[:, _POWER] = -by_power * level
            by_shape[:, _ABOVE] = -by_above * level
            by_shape[:, _SHIFT] = -by_distance * level if channel else 0.0
            block = np.zeros((len(self.rows), len(parameters)))
            block[:, : len(_SHAPE)] = by_shape
            first = len(_SHAPE) + channel * self.per_channel
            block[:, first : first + inner] = self.basis * (1.0 - lost)[:, None]
            block[:, first + inner : first + self.per_channel] = self.fold_basis
            block[np.isnan(self.values[:, channel])] = 0.0
            blocks.append(-block / _NOISE * np.sqrt(self.precision))
        return np.concatenate([*blocks, np.diag(1.0 / self.prior_deviation)])

    def solve(self, start: Array | None) -> Array:
        begin = self.prior_mean.copy()
        if start is not None:
            begin[: len(_SHAPE)] = start[: len(_SHAPE)]
            candidates = [begin]
        else:
            # the cliff makes the objective flat far away: start from the best of a few centres
            candidates = []
            for offset in (-1.5, -0.75, 0.0, 0.75, 1.5):
                candidate = begin.copy()
                candidate[_MU] = offset
                candidates.append(candidate)
        best, cost = begin, np.inf
        for candidate in candidates if len(self.rows) else []:
            found, its_cost = self._descend(candidate)
            if its_cost < cost:
                best, cost = found, its_cost
        return np.asarray(best)

    def _descend(self, parameters: Array) -> tuple[Array, float]:
        """A minimum near these parameters, and half the sum of squares there.

        Levenberg and Marquardt's method on the normal equations, which the prior keeps well conditioned: that is ten
        times as fast for hundreds of adapters as scipy's solvers, which decompose the Jacobian.
        """
        residuals = self.residuals(parameters)
        cost, damping = 0.5 * float(residuals @ residuals), 1e-3
        for _ in range(_STEPS):
            jacobian = self.jacobian(parameters)
            gradient, curvature = jacobian.T @ residuals, jacobian.T @ jacobian
            while True:
                damped = curvature + damping * np.diag(np.diag(curvature))
                step = linalg.cho_solve(linalg.cho_factor(damped, check_finite=False), -gradient, check_finite=False)
                there = self.residuals(parameters + step)
                its_cost = 0.5 * float(there @ there)
                if its_cost < cost or damping > _MOST_DAMPING:
                    break
                damping *= 4.0
            gained = cost - its_cost
            if not gained > 0:
                break
            parameters, residuals, cost, damping = parameters + step, there, its_cost, damping / 8.0
            if gained < _TOLERANCE * cost:
                break
        return parameters, cost

    def covariance(self, parameters: Array) -> Array:
        """Of the parameters, from the curvature there."""
        jacobian = self.jacobian(parameters)
        return np.asarray(np.linalg.inv(jacobian.T @ jacobian))

    def excess(self, parameters: Array) -> float:
        """Residual variance of a cell in units of what was assumed; the prior holds parameters, which then cost fewer
        degrees of freedom than there are of them."""
        count = _CHANNELS * len(self.rows)
        if not count:
            return 1.0
        data = self.jacobian(parameters)[:count]
        used = float(np.einsum("ni,ij,nj->", data, self.covariance(parameters), data))
        return float((self.residuals(parameters)[:count] ** 2).sum() / max(count - used, 1.0))

    def tops(self) -> tuple[Array, Array]:
        """Scaled score of every adapter at its best rate: its derivative by the parameters, and its variance where the
        adapter was not seen."""
        found = np.zeros((len(self.features), len(self.prior_mean)))
        first = len(_SHAPE)
        found[:, first] = 1.0
        found[:, first + 1 : first + 5] = self.trends
        found[self.seen, first + 5 + np.arange(len(self.seen))] = 1.0
        unseen = np.full(len(self.features), _TOP_DEVIATION**2)
        unseen[self.seen] = 0.0
        return found, unseen
