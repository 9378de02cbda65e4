"""Score by learning rate, one line per rank: where each rank learns best, and what a badly chosen rate would cost it.

Every setting that was trained is a point. The line of a rank is what the model of the rates (:mod:`statistics.rates`)
expects of its best adapter between the rates that were tried, drawn through the score of that adapter; the ring on it
is the rate at which the model expects the most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lora_search.plots import axes
from lora_search.plots.encoding import PAPER, RANKS
from lora_search.plots.landscape import Landscape, Point, landscape
from lora_search.plots.legend import Entry, write_rows
from lora_search.plots.marks import draw_baselines, note_points_below, nothing_to_draw
from lora_search.statistics.by_adapter import ByAdapter
from lora_search.statistics.recorded import RecordedStudy

_STEPS = 60


@dataclass(frozen=True)
class RateCurve:
    """What the model of the rates expects of one adapter.

    Attributes:
        rank: of the adapter. trial: that stands for it.
        rates: ascending. scores: expected at them, in raw metric units.
        optimum: the rate at which the most is expected, and that score.
    """

    rank: int
    trial: int
    rates: tuple[float, ...]
    scores: tuple[float, ...]
    optimum: tuple[float, float]


@dataclass(frozen=True)
class RatesData:
    """Every setting with a score, and a curve for each rank, by rank; none where a study has one rate."""

    scene: Landscape
    curves: tuple[RateCurve, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """All settings."""
        return (*self.scene.points, *self.scene.others)


def rates_data(study: RecordedStudy, rows: RecordedStudy, verdict: Mapping[str, Any]) -> RatesData:
    """The settings of a study and what was learned of their rates.

    Args:
        study: as it is recorded. rows: the same by adapter (``by_adapter``).
        verdict: the mapping of ``verdict.json``.
    """
    scene = landscape(study.trials, study.cells, verdict)
    if not isinstance(rows, ByAdapter) or rows.model is None:
        return RatesData(scene, ())
    leaders: dict[int, Point] = {}
    for point in scene.points:
        held = leaders.get(point.rank)
        if held is None or (point.finished, point.score) > (held.finished, held.score):
            leaders[point.rank] = point
    tried = [point.learning_rate for point in (*scene.points, *scene.others)]
    return RatesData(scene, tuple(_curve(rows, leaders[rank], min(tried), max(tried)) for rank in sorted(leaders)))


def _curve(rows: ByAdapter, point: Point, low: float, high: float) -> RateCurve:
    model, adapter = rows.model, rows.adapter_of(point.trial)
    assert model is not None, "the caller has asked"
    best = float(np.clip(model.optimum(model.features[[adapter]])[0][0], math.log(low), math.log(high)))
    rates = np.union1d(np.linspace(math.log(low), math.log(high), _STEPS), [best])
    lost = model.loss(adapter, np.array([math.log(point.learning_rate)]))[0] - model.loss(adapter, rates)
    scores = point.score + lost
    return RateCurve(
        rank=point.rank,
        trial=point.trial,
        rates=tuple(float(rate) for rate in np.exp(rates)),
        scores=tuple(float(score) for score in scores),
        optimum=(math.exp(best), float(scores[np.searchsorted(rates, best)])),
    )


def draw_rates(data: RatesData, ax: Axes) -> None:
    """Points and curves in one colour per rank, darker for more."""
    scene, points = data.scene, data.points
    axes.quiet(ax)
    if not points:
        nothing_to_draw(ax, "No trial has a score yet.")
        return
    axes.axis_titles(ax, "learning rate (log scale)", f"{scene.unit.axis}, mean over folds")
    limits = axes.score_limits(
        [point.score for point in points], scene.best_score, scene.margin, [line.score for line in scene.baselines]
    )
    axes.score_axis(ax, scene.unit, limits)
    axes.log_x_round(ax, [point.learning_rate for point in points])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    ranks = sorted({point.rank for point in points})
    colours = rank_colours(ranks)
    write_rows(ax, [[Entry(f"r={rank}", "o", colours[rank], colours[rank]) for rank in ranks]])
    if scene.best_score is not None:
        axes.margin_band(ax, scene.best_score, scene.margin, scene.unit)
    for curve in data.curves:
        shown = [(rate, score) for rate, score in zip(curve.rates, curve.scores, strict=True) if score >= limits[0]]
        if shown:
            ax.plot(*zip(*shown, strict=True), color=colours[curve.rank], linewidth=1.6, zorder=1.1)
        if curve.optimum[1] >= limits[0]:
            ax.plot(
                *curve.optimum, linestyle="none", marker="o", markersize=axes.MARKER_SIZE + 3, markerfacecolor="none",
                markeredgecolor=colours[curve.rank], markeredgewidth=1.4, zorder=3,
            )  # fmt: skip
    for point in points:
        _draw(ax, point, colours[point.rank], limits)
    draw_baselines(ax, scene, limits)
    note_points_below(ax, points, scene, limits)


def _draw(ax: Axes, point: Point, colour: str, limits: tuple[float, float]) -> None:
    """One setting: filled where it was trained to the end; an arrow below the axis."""
    if point.score < limits[0]:
        ax.plot([point.learning_rate], [limits[0]], marker="v", markersize=4.5, color=colour, clip_on=False, zorder=4)
        return
    ax.plot(
        [point.learning_rate], [point.score], linestyle="none", marker="o", zorder=4, clip_on=False,
        markersize=axes.MARKER_SIZE - 1.5, markerfacecolor=colour if point.finished else PAPER,
        markeredgecolor=PAPER if point.finished else colour, markeredgewidth=0.8 if point.finished else 1.1,
    )  # fmt: skip


def rank_colours(ranks: Sequence[int]) -> dict[int, str]:
    """A colour for each rank of an ascending list, darker for more."""
    last = max(len(ranks) - 1, 1)
    return {rank: RANKS[round(place / last * (len(RANKS) - 1))] for place, rank in enumerate(ranks)}
