"""What to train next: settings of adapters in rounds, one fold after another, fewer adapters each time.

A study asks which is the smallest adapter that is good enough, each adapter at its own best learning rate. The rounds:

1. *Probes*: three adapters, the smallest, the largest and one between, at three rates each, on one fold. Together they
   tell where learning happens, and how that depends on the adapter.
2. *Every adapter*, at the rate the model of the rates predicts for it, on that fold; those probed near enough have it.
3. *The next fold* for those still in the race. Before each, the model is fitted anew. An adapter whose setting is now
   believed to lose more than a little against its own best rate gets another setting, at that rate.

Once they all have a fold, an adapter is left out when it hardly has a chance to matter to the verdict, as in
:mod:`racing`: at its best rate, or, once there are no settings left to ask for, at the one it has. Where the number
of trainings is limited, the last ones go to those with the best chance.

A round is a function of what is recorded, so that a study which was interrupted goes on as if it had not been. numpy
only; the caller trains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import Array
from lora_search.statistics.question import Question
from lora_search.statistics.racing import ERROR, Elimination, chance_to_matter, cheapest, reason_of, release
from lora_search.statistics.rates import LEAST, RateModel
from lora_search.statistics.settings import AdapterScores, Knowing, Settings, adapter_scores

PROBES = 3
"""Adapters probed, and rates tried of each."""
SPREAD = 1.2
"""Distance between neighbouring probes, in natural logarithms of the rate: a factor of 3.3."""
NEAR = 0.35
"""A setting whose rate is this near (natural logarithm) to the one wanted stands for it: a factor of 1.4."""
MOST_SETTINGS = 4
"""Of one adapter, probes aside."""
DRAWS = 2000
"""Predictions of the full run made at each look."""
NOISE_FREEDOM = 12.0
"""Degrees of freedom with which the noise of a cell is taken to be known."""
WORTH_TRYING = 0.25
"""Another rate is tried where it is believed to gain this share of the margin."""


def tolerated(margin: float, least: float = LEAST) -> float:
    """Metric units that a rate may cost before another is worth a training.

    Args:
        margin: of the verdict.
        least: difference of scores below which there is none.
    """
    return max(WORTH_TRYING * margin, least)


@dataclass(frozen=True)
class Rules:
    """What a study is run by.

    Attributes:
        question: that the verdict is going to answer.
        low, high: natural logarithms of the least and the greatest rate allowed.
        rates: natural logarithms of the only rates allowed; None for all between ``low`` and ``high``.
        cells: most trainings in all; None for no limit.
        adapters: how many the study is going to compare, to pace racing; None where all are in it from the beginning.
        seed: of racing's predictions.
        error: the chance that racing may spend of throwing out what the full run would recommend.
        least: difference of scores below which there is none.
    """

    question: Question
    low: float
    high: float
    rates: tuple[float, ...] | None = None
    cells: int | None = None
    adapters: int | None = None
    seed: int = 0
    error: float = ERROR
    least: float = LEAST

    def allowed(self, log_rate: float) -> float:
        """The nearest rate that is allowed."""
        if self.rates is None:
            return min(max(log_rate, self.low), self.high)
        return min(self.rates, key=lambda rate: abs(rate - log_rate))

    @property
    def tolerance(self) -> float:
        """Metric units that a rate may cost before another is worth a training."""
        return tolerated(self.question.margin, self.least)


@dataclass(frozen=True)
class Wanted:
    """One training: of a setting there is (``setting``), or of a new one, the ``new``-th of this round."""

    column: int
    setting: int | None = None
    new: int | None = None


@dataclass(frozen=True)
class Round:
    """What to do now.

    Attributes:
        new: (adapter, log rate) of settings to be asked for.
        wanted: the trainings.
        complete: the setting of each adapter that has all its planned cells now, by adapter.
        eliminated: adapters that need no more cells.
        spent: error spent by racing so far.
    """

    new: tuple[tuple[int, float], ...] = ()
    wanted: tuple[Wanted, ...] = ()
    complete: Mapping[int, int] = field(default_factory=dict)
    eliminated: tuple[Elimination, ...] = ()
    spent: float = 0.0


def probes(features: Array, parameters: Array) -> NDArray[np.int64]:
    """The adapters to probe: the smallest, the largest, and the one whose features are nearest to their middle."""
    count = min(PROBES, len(features))
    smallest = int(np.lexsort((features.sum(axis=1), parameters))[0])
    largest = int(np.lexsort((features.sum(axis=1), parameters))[-1])
    scale = np.maximum(np.ptp(features, axis=0), 1e-9)
    away = np.abs((features - (features[smallest] + features[largest]) / 2.0) / scale).sum(axis=1)
    middle = [int(row) for row in np.argsort(away, kind="stable") if row not in (smallest, largest)]
    return np.array(list(dict.fromkeys([smallest, largest, *middle]))[:count])


def probing_rates(adapters: Sequence[int], model: RateModel, rules: Rules) -> list[tuple[int, float]]:
    """(adapter, log rate) of the probes: around the rate that the prior expects, a step to either side."""
    best, _ = model.optimum()
    spread = min(SPREAD, (rules.high - rules.low) / (PROBES - 1))
    found: list[tuple[int, float]] = []
    for row in adapters:
        middle = float(np.clip(best[row], rules.low + spread, rules.high - spread))
        rates = {rules.allowed(middle + step * spread): None for step in (-1, 0, 1)}
        found.extend((int(row), rate) for rate in rates)
    return found


def no_settings(columns: int = 1) -> Settings:
    """Of a study that has not begun."""
    return Settings(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, columns)), np.zeros((0, columns)))


def next_round(
    settings: Settings,
    features: Array,
    parameters: Array,
    nothing: Knowing,
    rules: Rules,
    *,
    pool: Collection[int] | None = None,
    settled: Collection[int] = (),
    eliminated: Collection[int] = (),
    spent: float = 0.0,
    room: int | None = None,
) -> Round:
    """What to train after what was trained; nothing wanted where every adapter in the race has its cells.

    Args:
        settings: those there are, with their cells; ``score`` has ``rules.question.planned`` columns or more.
        features, parameters: of all adapters, one row each.
        nothing: the score of knowing nothing, and the prior centre of the rate.
        rules: of the study.
        pool: the adapters in the study; None for all. settled: those of them that have all their cells.
        eliminated: adapters out of the race.
        spent: error that earlier rounds have spent.
        room: settings that may still be asked for; None for any number.
    """
    scores = adapter_scores(settings, features, nothing, tolerance=rules.tolerance)
    planned = scores.score[:, : rules.question.planned]
    everyone = sorted(set(range(len(features))) if pool is None else set(pool))
    alive = [row for row in everyone if row not in eliminated and not _is_lost(row, settings, room)]
    losses: tuple[Elimination, ...] = ()
    rows = [row for row in alive if row not in settled]
    ahead: Outlook | None = None
    if len(alive) > 1 and not np.isnan(planned[alive]).all(axis=1).any():
        ahead = outlook(scores, parameters, alive, rules, _costs(alive, settings, scores, rules, room))
        losses, spent = _race(ahead, planned, parameters, everyone, rules, spent)
        out = {loss.trial for loss in losses}
        rows = [row for row in rows if row not in out]
    may_ask = [row for row in rows if _may_ask(row, settings, room)]
    chosen = _chosen(rows, may_ask, settings, scores, rules)
    if ahead is not None:
        chosen = _in_budget(chosen, ahead, settings, rules)
    asking = sorted((row for row in chosen if chosen[row] is None), key=lambda row: -scores.model.top[row])
    if room is not None and len(asking) > room:
        chosen = _chosen(list(chosen), asking[:room], settings, scores, rules)
    return _due(chosen, settings, scores, rules, losses, spent)


def _due(
    chosen: Mapping[int, int | None],
    settings: Settings,
    scores: AdapterScores,
    rules: Rules,
    losses: tuple[Elimination, ...],
    spent: float,
) -> Round:
    """The next column for those that are behind; a setting that takes over is given all that it lacks up to there."""
    trained = settings.trained[:, : rules.question.planned]
    whole = {row: s for row, s in chosen.items() if s is not None and trained[s].all()}
    reached = {row: _reached(trained[settings.adapter == row]) for row in chosen if row not in whole}
    column = min(min(reached.values(), default=0), rules.question.planned - 1)
    new: list[tuple[int, float]] = []
    wanted: list[Wanted] = []
    for row in reached:
        setting = chosen[row]
        if setting is None:
            new.append((row, _wanted_rate(row, settings, scores, rules)))
            wanted.extend(Wanted(due, new=len(new) - 1) for due in range(column + 1))
        else:
            wanted.extend(Wanted(due, setting=setting) for due in range(column + 1) if not trained[setting, due])
    if rules.cells is not None:  # a setting that takes over asks for cells its adapter has had
        wanted = wanted[: max(rules.cells - int(settings.trained.sum()), 0)]
        new = new[: len({want.new for want in wanted if want.new is not None})]
    return Round(tuple(new), tuple(wanted), whole, losses, spent)


def _reached(trained: NDArray[np.bool_]) -> int:
    """How many columns an adapter has gone through, with the setting of it that has gone furthest."""
    return int(np.cumprod(trained, axis=1).sum(axis=1).max()) if len(trained) else 0


def _may_ask(row: int, settings: Settings, room: int | None) -> bool:
    """Whether an adapter may be tried at another rate."""
    return room != 0 and int((settings.adapter == row).sum()) < MOST_SETTINGS


def _is_lost(row: int, settings: Settings, room: int | None) -> bool:
    """Whether all settings of an adapter failed, and it may have no other: whatever is predicted of it, it is out."""
    mine = settings.score[settings.adapter == row]
    return bool(len(mine)) and bool(np.isneginf(mine).any(axis=1).all()) and not _may_ask(row, settings, room)


def _chosen(
    rows: Sequence[int], may_ask: Collection[int], settings: Settings, scores: AdapterScores, rules: Rules
) -> dict[int, int | None]:
    """The setting each goes on with, None for a new one; without those all of which failed and that may have none."""
    chosen = {row: _setting_for(row, settings, scores, rules, may_ask=row in may_ask) for row in rows}
    return {row: setting for row, setting in chosen.items() if setting is not None or row in may_ask}


def _wanted_rate(row: int, settings: Settings, scores: AdapterScores, rules: Rules) -> float:
    """The rate believed best for an adapter; no further than a step beyond what was tried of it."""
    best, _ = scores.model.optimum(scores.model.features[[row]])
    mine = settings.log_rate[settings.adapter == row]
    reach = float(best[0])
    return rules.allowed(float(np.clip(reach, mine.min() - SPREAD, mine.max() + SPREAD)) if mine.size else reach)


def _setting_for(row: int, settings: Settings, scores: AdapterScores, rules: Rules, *, may_ask: bool) -> int | None:
    """The setting of an adapter to go on with; None where another rate is worth trying and may be asked for, and where
    all failed."""
    mine = np.flatnonzero((settings.adapter == row) & ~np.isneginf(settings.score).any(axis=1))
    if not mine.size:
        return None
    if whole := [int(place) for place in mine if settings.trained[place, : rules.question.planned].all()]:
        return max(whole, key=lambda place: -float(scores.model.loss(row, settings.log_rate[place])))
    rate = _wanted_rate(row, settings, scores, rules)
    losses = np.array([float(scores.model.loss(row, settings.log_rate[place])) for place in mine])
    main = int(scores.main[row])
    # the one with cells that speak for it, unless another is clearly nearer to the best rate
    kept = (
        main
        if main in mine and losses[mine == main][0] <= losses.min() + rules.tolerance
        else int(mine[losses.argmin()])
    )
    gain = float(losses[mine == kept][0] - scores.model.loss(row, rate))
    near = abs(settings.log_rate[kept] - rate) <= NEAR
    tried = rate in settings.log_rate[settings.adapter == row]
    return None if may_ask and not near and not tried and gain > rules.tolerance else kept


@dataclass(frozen=True)
class Outlook:
    """The end of the full run, predicted many times over: arrays ``(draws, adapters)``, smallest adapter first.

    Attributes:
        rows: the adapters.
        finals: their scores.
        variances: noise of one cell.
        chances: of each to matter to the verdict.
    """

    rows: NDArray[np.int64]
    finals: Array
    variances: Array
    chances: Array


def _costs(rows: Sequence[int], settings: Settings, scores: AdapterScores, rules: Rules, room: int | None) -> Array:
    """``(adapters,)`` what the setting that an adapter goes on with is believed to lose, where it may have no other:
    with the settings used up the full run ends at that, and no longer at its best rate."""
    costs = np.zeros(len(scores.model.features))
    for row in rows:
        if not _may_ask(row, settings, room):
            setting = _setting_for(row, settings, scores, rules, may_ask=False)
            costs[row] = 0.0 if setting is None else float(scores.model.loss(row, settings.log_rate[setting]))
    return costs


def outlook(scores: AdapterScores, parameters: Array, rows: Collection[int], rules: Rules, costs: Array) -> Outlook:
    """Predict the full run from the model of the rates, which pools all cells: adapters alike are believed to score
    alike, as far as their own cells do not say otherwise.

    Args:
        scores: of the adapters. parameters: ``(adapters,)``.
        rows: those in the race.
        rules: of the study.
        costs: ``(adapters,)`` metric units by which each is going to miss what it scores at its best rate.
    """
    order = np.array(sorted(rows, key=lambda row: (parameters[row], row)), dtype=np.int64)
    rng = np.random.default_rng(rules.seed)
    model = scores.model
    missing = np.isnan(scores.score[order, : rules.question.planned]).sum(axis=1)
    covariance = model.top_covariance[np.ix_(order, order)]
    tops = rng.multivariate_normal(model.top[order] - costs[order], covariance, size=DRAWS, method="eigh")
    variances = model.noise**2 * NOISE_FREEDOM / rng.chisquare(NOISE_FREEDOM, size=tops.shape)
    noise = np.sqrt(variances * missing) / rules.question.planned * rng.standard_normal(tops.shape)
    finals = tops + noise
    found = chance_to_matter(finals, variances, rules.question)
    return Outlook(order, finals, variances, found)


def _race(
    ahead: Outlook, planned: Array, parameters: Array, everyone: list[int], rules: Rules, spent: float
) -> tuple[tuple[Elimination, ...], float]:
    """Those whose chances to matter are the least, as long as their sum stays within what may be spent by now."""
    lacking = np.asarray(np.isnan(planned[ahead.rows]).any(axis=1))
    done = (~np.isnan(planned[everyone])).sum() + planned.shape[1] * (len(everyone) - len(ahead.rows))
    whole = planned.shape[1] * max(len(everyone), rules.adapters or 0)
    allowed = rules.error * release(float(done) / whole) - spent
    found = tuple(_elimination(ahead, parameters, place, rules) for place in cheapest(ahead.chances, lacking, allowed))
    return found, spent + sum(loss.charge for loss in found)


def _elimination(ahead: Outlook, parameters: Array, place: int, rules: Rules) -> Elimination:
    reason, against, probability = reason_of(ahead.finals, parameters[ahead.rows], place, rules.question.margin)
    return Elimination(
        int(ahead.rows[place]), reason, int(ahead.rows[against]), probability, float(ahead.chances[place])
    )


def _in_budget(
    chosen: Mapping[int, int | None], ahead: Outlook, settings: Settings, rules: Rules
) -> dict[int, int | None]:
    """The adapters that can be trained to the end with the trainings that are left: those that matter most for what
    they need, so that what is nearly done is finished."""
    if rules.cells is None:
        return dict(chosen)
    left = max(rules.cells - int(settings.trained.sum()), 0)
    chance = dict(zip(ahead.rows.tolist(), ahead.chances.tolist(), strict=True))
    lacking = (~settings.trained[:, : rules.question.planned]).sum(axis=1)
    need = {row: rules.question.planned if s is None else int(lacking[s]) for row, s in chosen.items()}
    kept: set[int] = set()
    for row in sorted(chosen, key=lambda row: (-chance[row] / max(need[row], 1), row)):
        if need[row] <= left:
            kept.add(row)
            left -= need[row]
    return {row: setting for row, setting in chosen.items() if row in kept}
