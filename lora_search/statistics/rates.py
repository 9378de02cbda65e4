"""How the best learning rate depends on the adapter: one small model for all cells of a study.

A learning rate is a nuisance: two adapters are compared each at its own best rate. To look for that rate adapter by
adapter would cost a grid per adapter; but the best rates are a smooth function of what an adapter is, so every cell
of the study tells something about all of them. With x = log rate, the optimum of an adapter is

    x* = mu - b . features,   features = log rank, log (adapted layers), log (modules per layer), log scale,

where the scale is alpha / rank (rsLoRA: alpha / sqrt(rank)). What is known beforehand enters as a normal prior on every
coefficient: with Adam, scale and rate are nearly one dimension, and small ranks and few layers want larger rates (Hayou
et al. 2024, LoRA+; Biderman et al. 2024; Schulman et al. 2025, LoRA Without Regret). Away from the optimum an adapter
keeps a share of what it can learn (:mod:`rate_shape`),

    y = top kept(x - x*) + fold,

where y is scaled: 0 is the score of knowing nothing, 1 the best seen. Two things are observed of every cell, its score
and its log loss, which is less noisy by far and tells on which side of the optimum a rate lies; the optimum in log loss
may lie a little beside that in score (``shift``). All is fitted at once (:mod:`rate_fit`).

What is chosen is not the top of the likeliest curve but the rate of the least expected loss over all curves that may
be: between two cliffs that is the middle, and further from the one that is steeper or less known.

numpy and scipy only; knows neither trials nor studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import Array
from lora_search.statistics.rate_fit import NOISE, Minimum, Problem, probable
from lora_search.statistics.rate_shape import SIZE, design, draws, expected_drop

FEATURES = ("log rank", "log layers", "log modules per layer", "log scale")

_NEXT_TO_NOTHING = 0.02
"""Share of what can be learned, scored by a cell that knows next to nothing."""
LEAST = 1e-3
"""A difference of scores, or of losses, below which there is none."""
_LOOKED_AT = np.linspace(-3.0, 3.0, 121)
"""Rates looked at for the best, from the middle of where the tops may be; natural logarithms."""

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


@dataclass(frozen=True, eq=False)
class RateModel:
    """The fitted model.

    Attributes:
        features: ``(adapters, 4)``, of the adapters it was fitted for, observed or not.
        centre: prior centre of the log rate of an adapter whose features are all 0.
        shape: the likeliest, in the order of ``rate_shape``.
        shapes: ``(draws, SIZE)`` that may be. weights: ``(draws,)`` how probable each is.
        top: ``(adapters,)`` score at its own best rate above that of knowing nothing, in metric units.
        top_covariance: of ``top``.
        span: metric units between knowing nothing and the best seen.
        noise: of one cell's score near the top, in metric units.
    """

    features: Array
    centre: float
    shape: Array
    shapes: Array
    weights: Array
    top: Array
    top_covariance: Array
    span: float
    noise: float

    def optimum(self, features: Array | None = None) -> tuple[Array, Array]:
        """(log rate, standard deviation of where the top is) at which each adapter is expected to score best."""
        tops = self._tops(self.features if features is None else features)
        middle = tops @ self.weights
        spread = np.sqrt(np.maximum((tops - middle[:, None]) ** 2 @ self.weights, 0.0))
        return self.centre + np.array([self._safest(its) for its in tops]), spread

    def loss(self, adapter: int, log_rate: Array | float) -> Array:
        """Expected metric units that an adapter loses at a rate against its own best, all that is unknown of the shape
        included."""
        tops = self._tops(self.features[[adapter]])[0]
        share = self._share_lost(np.asarray(log_rate, dtype=np.float64) - self.centre, tops)
        return np.asarray(max(float(self.top[adapter]), 0.0) * share)

    def _tops(self, features: Array) -> Array:
        return np.asarray(design(features) @ self.shapes.T)

    def _share_lost(self, log_rate: Array, tops: Array) -> Array:
        return expected_drop(log_rate[..., None] - tops, self.shapes, self.weights)

    def _safest(self, tops: Array) -> float:
        """Where the share lost is least, between the rates looked at."""
        rates = float(tops @ self.weights) + _LOOKED_AT
        lost = self._share_lost(rates, tops)
        place = int(np.clip(lost.argmin(), 1, len(rates) - 2))
        before, there, after = lost[place - 1 : place + 2]
        bend = before - 2.0 * there + after
        aside = 0.5 * (before - after) / bend if bend > 0 else 0.0
        return float(rates[place] + np.clip(aside, -1.0, 1.0) * (rates[1] - rates[0]))


def fit_rates(
    features: Array,
    cells: RateCells,
    *,
    nothing: float,
    nothing_log_loss: float,
    centre: float,
    start: Array | None = None,
    least: tuple[float, float] = (LEAST, LEAST),
    may_fall: bool = False,
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
        may_fall: whether trainings can end below knowing nothing, as those of a base that knows much as it is. Then the
            zero of what is fitted lies lower: else all that harms would look alike.

    Returns:
        the model.
    """
    if may_fall:
        finite = np.isfinite(cells.score)
        nothing = _below(cells.score[finite], nothing)
        nothing_log_loss = -_below(-cells.log_loss[finite & np.isfinite(cells.log_loss)], -nothing_log_loss)
    return _fitted(_Asked(features, cells, nothing, nothing_log_loss, centre, start, least))


def _below(values: Array, nothing: float) -> float:
    """As far below knowing nothing as the best is above it, where trainings went as low; where none was better, what
    all but the lowest quarter exceed."""
    if not values.size or not np.isfinite(nothing):
        return nothing
    lowest, best = float(values.min()), float(values.max())
    if best > nothing:
        return max(min(lowest, nothing), 2.0 * nothing - best)
    return max(lowest, float(np.quantile(values, 0.25)))


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
        self.problem, self.span = _problem(features, cells, nothing, nothing_log_loss, centre, least)
        self.features, self.centre, self.start = features, centre, start
        arrays = (features, *vars(cells).values(), np.array([nothing, nothing_log_loss, centre, *least]))
        parts = [*arrays, np.zeros(0) if start is None else start]
        self._key = b"|".join(str(part.shape).encode() + part.tobytes() for part in parts)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


def _problem(
    features: Array,
    cells: RateCells,
    nothing: float,
    nothing_log_loss: float,
    centre: float,
    least: tuple[float, float] = (LEAST, LEAST),
) -> tuple[Problem, float]:
    """What is fitted, and the metric units that 1 is there."""
    score = np.maximum(np.where(np.isfinite(cells.score), cells.score, nothing), nothing)
    best = score.max() if len(cells) else nothing + 1.0
    span = max(float(best - nothing), least[0])
    if not np.isfinite(nothing_log_loss):
        nothing_log_loss = _loss_of_nothing(score - nothing <= _NEXT_TO_NOTHING * span, cells)
    losses = np.where(np.isfinite(cells.score), cells.log_loss, nothing_log_loss)
    lowest = np.nanmin(losses) if len(cells) and np.isfinite(losses).any() else nothing_log_loss - 1.0
    room = max(float(nothing_log_loss - lowest), least[1])
    learned = np.maximum((nothing_log_loss - losses) / room, 0.0)
    values = np.stack([(score - nothing) / span, learned])
    return Problem(features, values, cells.adapter, cells.log_rate - centre, cells.column), span


@lru_cache(maxsize=64)  # the judge of a study, its next round and its pages ask for the same
def _fitted(asked: _Asked) -> RateModel:
    problem, span = asked.problem, asked.span
    explanations = probable(problem.minima(asked.start))
    best = explanations[0][1]
    shapes, weights = _may_be(explanations)
    by_parameter, unseen = problem.tops()
    return RateModel(
        features=asked.features,
        centre=asked.centre,
        shape=best.shape,
        shapes=shapes,
        weights=weights,
        top=by_parameter @ best.parameters * span,
        top_covariance=(by_parameter @ best.covariance @ by_parameter.T + np.diag(unseen)) * span**2,
        span=span,
        noise=NOISE * best.excess**0.5 * span,
    )


def _may_be(explanations: list[tuple[float, Minimum]]) -> tuple[Array, Array]:
    """Shapes drawn from all explanations, and how probable each is."""
    found = [draws(one.shape, one.covariance[:SIZE, :SIZE]) for _, one in explanations]
    weights = [np.full(len(its), weight / len(its)) for its, (weight, _) in zip(found, explanations, strict=True)]
    return np.concatenate(found), np.concatenate(weights)
