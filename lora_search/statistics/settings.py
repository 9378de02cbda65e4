"""From settings to adapters: an adapter's score is that at its own well-chosen learning rate.

A *setting* is an adapter with its nuisance values; Optuna keeps a trial for each. What is compared is the adapter. Its
score on a fold is the score of one of its settings there, the one that the *other* folds speak for: what it is scored
by had no part in choosing it, so the choice flatters nothing (nested selection, Varma and Simon 2006; the model of the
rate pools what the cells of all adapters say). A setting that is clearly not the best of its adapter never stands for
it: where only such a one was trained, the adapter has no score yet, and is due one.

How good a setting is believed to be is what the model of the rate predicts of it, corrected by how its own cells differ
from that as far as their number allows.

Columns are (repeat, fold) pairs. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import Array
from lora_search.statistics.levels import additive_scores
from lora_search.statistics.rates import LEAST, RateCells, RateModel, fit_rates

OWN_SPREAD = 0.5
"""How far a setting's true score strays from what the model says of it, in units of the noise of one cell."""


@dataclass(frozen=True)
class Settings:
    """All settings of a study with their cells.

    Attributes:
        adapter: ``(settings,)`` row of the adapter of each.
        log_rate: ``(settings,)`` natural logarithm of the learning rate.
        score: ``(settings, columns)``, higher is better; NaN where not trained, minus infinity where it diverged.
        log_loss: ``(settings, columns)``, nats; NaN where not trained or not known.
    """

    adapter: NDArray[np.int64]
    log_rate: Array
    score: Array
    log_loss: Array

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Which cells there are."""
        return np.asarray(~np.isnan(self.score))

    def cells(self) -> RateCells:
        """One entry per trained cell."""
        rows, columns = np.nonzero(self.trained)
        return RateCells(
            adapter=self.adapter[rows],
            log_rate=self.log_rate[rows],
            column=columns,
            score=self.score[rows, columns],
            log_loss=self.log_loss[rows, columns],
        )


@dataclass(frozen=True)
class Knowing:
    """What an answer would score that knows nothing of the inputs, and where the search for the rate begins.

    Attributes:
        score: in metric units. log_loss: in nats, or in the unit of the loss there is beside the metric.
        centre: logarithm of the rate expected to suit an adapter whose features are all 0.
        least, least_loss: differences of scores, and of losses, below which there is none.
        may_fall: whether trainings can end below, as those of a base that knows much as it is.
    """

    score: float
    log_loss: float
    centre: float
    least: float = LEAST
    least_loss: float = LEAST
    may_fall: bool = False


@dataclass(frozen=True)
class AdapterScores:
    """The adapters of a study, each at its own well-chosen rate.

    Attributes:
        score: ``(adapters, columns)``; NaN where no setting that may stand for the adapter was trained.
        chosen: ``(adapters, columns)`` the setting that does; -1 where none.
        main: ``(adapters,)`` the setting that all cells together speak for; -1 for an adapter without cells.
        model: of the rate, fitted to all cells.
    """

    score: Array
    chosen: NDArray[np.int64]
    main: NDArray[np.int64]
    model: RateModel


def fit(settings: Settings, features: Array, nothing: Knowing, *, start: Array | None = None) -> RateModel:
    """The model of the rate, from all cells."""
    return _fit(settings.cells(), features, nothing, start)


def adapter_scores(
    settings: Settings,
    features: Array,
    nothing: Knowing,
    *,
    tolerance: float,
    model: RateModel | None = None,
    settled: Mapping[int, int] | None = None,
) -> AdapterScores:
    """Choose each adapter's setting, fold by fold, by the other folds.

    Args:
        settings: what was trained.
        features: ``(adapters, features)`` as the model of the rate wants them.
        nothing: the score of knowing nothing, and the prior centre of the rate.
        tolerance: metric units by which a setting may be believed below the best of its adapter and still stand for it.
        model: of all cells, where it is at hand.
        settled: the setting that stands for an adapter, by adapter, where that is no longer asked.
    """
    model = model or fit(settings, features, nothing)
    adapters, columns = len(features), settings.score.shape[1]
    trained, cells = settings.trained, settings.cells()
    score, chosen = np.full((adapters, columns), np.nan), np.full((adapters, columns), -1)
    worth = _worth(settings, model)
    main = np.array(
        [_best(worth, np.flatnonzero((settings.adapter == row) & trained.any(axis=1))) for row in range(adapters)]
    )
    if settled:
        main[list(settled)] = list(settled.values())
    may_stand = (main[settings.adapter] >= 0) & (worth >= worth[main[settings.adapter]] - tolerance)
    several = {row for row in range(adapters) if (may_stand & (settings.adapter == row)).sum() > 1}
    for column in np.flatnonzero(trained.any(axis=0)).tolist():
        here = np.flatnonzero(trained[:, column] & may_stand)
        without = worth
        if several & set(settings.adapter[here].tolist()):
            others = Settings(settings.adapter, settings.log_rate, *_blanked(settings, column))
            without = _worth(others, _fit(cells.without(column), features, nothing, model.shape))
        for row in np.unique(settings.adapter[here]):
            mine = here[settings.adapter[here] == row]
            pick = _best(without, mine)
            score[row, column], chosen[row, column] = settings.score[pick, column], pick
    return AdapterScores(score, chosen, main, model)


def _fit(cells: RateCells, features: Array, nothing: Knowing, start: Array | None) -> RateModel:
    return fit_rates(
        features,
        cells,
        nothing=nothing.score,
        nothing_log_loss=nothing.log_loss,
        centre=nothing.centre,
        start=start,
        least=(nothing.least, nothing.least_loss),
        may_fall=nothing.may_fall,
    )


def _blanked(settings: Settings, column: int) -> tuple[Array, Array]:
    score, log_loss = settings.score.copy(), settings.log_loss.copy()
    score[:, column] = log_loss[:, column] = np.nan
    return score, log_loss


def _worth(settings: Settings, model: RateModel) -> Array:
    """How good each setting is believed to be, in metric units against the same zero for all of one adapter."""
    lost = np.array(
        [float(model.loss(row, rate)) for row, rate in zip(settings.adapter, settings.log_rate, strict=True)]
    )
    predicted: Array = model.top[settings.adapter] - lost
    counts = settings.trained.sum(axis=1)
    if not counts.any():
        return predicted
    finite = np.where(np.isneginf(settings.score), np.nan, settings.score)
    failed = np.isneginf(settings.score).any(axis=1)
    level = additive_scores(finite)
    seen = (~np.isnan(finite)).any(axis=1)
    # levels and predictions have zeros of their own
    gap = np.where(seen, level - predicted, 0.0)
    gap = gap - np.median(gap[seen]) if seen.any() else gap
    weight = counts / (counts + 1.0 / OWN_SPREAD**2)
    return np.asarray(np.where(failed, -np.inf, predicted + np.where(seen, weight * gap, 0.0)))


def _best(worth: Array, rows: NDArray[np.int64]) -> int:
    return int(rows[np.argmax(worth[rows])]) if rows.size else -1
