"""Score against what an adapter costs: its parameters, or the seconds of one training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lora_search.plots import axes
from lora_search.plots.encoding import MUTED
from lora_search.plots.formats import count, duration
from lora_search.plots.landscape import Landscape, Point, landscape
from lora_search.plots.legend import legend_rows
from lora_search.plots.marks import (
    draw_baselines,
    draw_interval,
    draw_point,
    name_points,
    note_points_below,
    nothing_to_draw,
)

_DODGE_POINTS = 5.0

Cost = Literal["parameters", "compute", "wall"]

_TITLES: Mapping[Cost, str] = {
    "parameters": "adapter parameters (log scale)",
    "compute": "compute time of one training (log scale)",
    "wall": "wall-clock time of one training (log scale)",
}


@dataclass(frozen=True)
class TradeoffData:
    """Scored trials with their cost on the x axis.

    Attributes:
        scene: the trials and who is who among them.
        cost: what x counts.
        x: by trial number, positive; trials without a measured cost are missing.
        front: the Pareto front of the score and adapter parameters; empty where x is time.
    """

    scene: Landscape
    cost: Cost
    x: Mapping[int, float]
    front: tuple[Point, ...]


def parameters_data(trials: pd.DataFrame, cells: pd.DataFrame, verdict: Mapping[str, Any]) -> TradeoffData:
    """Score against adapter parameters (a task head, equal for all, is not counted)."""
    scene = landscape(trials, cells, verdict)
    x = {point.trial: float(point.adapter_parameters) for point in scene.points}
    return TradeoffData(scene, "parameters", x, scene.front)


def time_data(
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    verdict: Mapping[str, Any],
    clock: Literal["compute", "wall"] | None = None,
) -> TradeoffData:
    """Score against the mean seconds of one training.

    Args:
        trials, cells, verdict: as ``landscape`` takes them.
        clock: ``wall``, the clock on the wall; ``compute``, a training's own share of its pack by work done. By default
            the wall clock where every training ran alone, and compute where trainings were packed: the wall clock of a
            pack says nothing of one of its adapters.
    """
    scene = landscape(trials, cells, verdict)
    chosen = clock or ("compute" if (cells["pack_cells"] > 1).any() else "wall")
    seconds = {p.trial: p.compute_seconds if chosen == "compute" else p.wall_seconds for p in scene.points}
    return TradeoffData(scene, chosen, {trial: value for trial, value in seconds.items() if value > 0}, ())


def draw_tradeoff(data: TradeoffData, ax: Axes) -> None:
    """Points with intervals over the margin band; the best, the recommended and the guess are named."""
    scene = data.scene
    points = [point for point in scene.points if point.trial in data.x]
    axes.quiet(ax)
    if not points:
        nothing_to_draw(ax, "No trial has a score yet.")
        return
    axes.axis_titles(ax, _TITLES[data.cost], f"{scene.unit.axis}, mean over folds")
    limits = axes.score_limits(
        [point.score for point in points], scene.best_score, scene.margin, [line.score for line in scene.baselines]
    )
    axes.score_axis(ax, scene.unit, limits)
    _cost_axis(ax, data)
    legend_rows(ax, scene.encoding, colours=True, hollow=any(not point.finished for point in points))
    if scene.best_score is not None:
        axes.margin_band(ax, scene.best_score, scene.margin, scene.unit)
    if len(data.front) > 1:
        ax.plot(
            [point.adapter_parameters for point in data.front], [point.score for point in data.front],
            color=MUTED, linewidth=0.9, linestyle=(0, (4, 2.5)), drawstyle="steps-post", zorder=1,
        )  # fmt: skip
    places = _dodged(points, data.x, ax)
    for point in points:
        draw_interval(ax, scene, point, places[point.trial], limits)
        draw_point(ax, scene, point, places[point.trial], limits)
    draw_baselines(ax, scene, limits)
    note_points_below(ax, points, scene, limits)
    name_points(ax, scene, places, limits, [*_along_intervals(points, places, limits), *_along_front(data.front)])


def _cost_axis(ax: Axes, data: TradeoffData) -> None:
    scene, x = data.scene, data.x
    if data.cost == "parameters":
        axes.log_x(ax, x.values(), [x[t] for t in (scene.recommended, scene.best) if t is not None and t in x])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    else:
        axes.log_x_round(ax, x.values())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))


def _dodged(points: Sequence[Point], x: Mapping[int, float], ax: Axes) -> dict[int, float]:
    """x by trial, nudged sideways where several trials share one value, so that intervals do not hide each other."""
    shared: dict[float, list[Point]] = defaultdict(list)
    for point in points:
        shared[x[point.trial]].append(point)
    low, high = ax.get_xlim()
    step = (high / low) ** (_DODGE_POINTS / axes.width_in_points(ax))
    return {
        point.trial: value * step ** (place - (len(group) - 1) / 2)
        for value, group in shared.items()
        for place, point in enumerate(sorted(group, key=lambda p: p.trial))
    }


def _along_intervals(
    points: Sequence[Point], places: Mapping[int, float], limits: tuple[float, float]
) -> list[tuple[float, float]]:
    return [
        (places[point.trial], float(y))
        for point in points
        if point.finished and point.low is not None and point.high is not None
        for y in np.linspace(max(point.low, limits[0]), min(point.high, limits[1]), 40)
    ]


def _along_front(front: Sequence[Point]) -> list[tuple[float, float]]:
    """Points along the steps of the front: each level from its trial to the next, then up."""
    return [
        spot
        for first, second in pairwise(front)
        for spot in (
            *((float(x), first.score) for x in np.geomspace(first.adapter_parameters, second.adapter_parameters, 40)),
            *((float(second.adapter_parameters), float(y)) for y in np.linspace(first.score, second.score, 8)),
        )
    ]
