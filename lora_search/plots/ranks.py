"""Score by rank, one line per target set: does a larger rank still buy anything?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lora_search.plots import axes
from lora_search.plots.landscape import Landscape, Point, landscape
from lora_search.plots.legend import legend_rows
from lora_search.plots.marks import draw_baselines, draw_point, name_points, note_points_below, nothing_to_draw

_DODGE_POINTS, _MOST_DODGE_POINTS, _RANK_GAP = 6.0, 22.0, 18.0


@dataclass(frozen=True)
class RanksData:
    """Scored trials by rank.

    Attributes:
        scene: the trials and who is who among them.
        lines: for each target set its best adapter at each rank, by rank; one that was trained to the end if any was.
    """

    scene: Landscape
    lines: Mapping[str, tuple[Point, ...]]


def ranks_data(trials: pd.DataFrame, cells: pd.DataFrame, verdict: Mapping[str, Any]) -> RanksData:
    """The best adapter of each target set at each rank."""
    scene = landscape(trials, cells, verdict)
    lines: dict[str, tuple[Point, ...]] = {}
    for targets in scene.encoding.colours:
        best: dict[int, Point] = {}
        for point in scene.points:
            if point.targets != targets:
                continue
            held = best.get(point.rank)
            if held is None or (point.finished, point.score) > (held.finished, held.score):
                best[point.rank] = point
        lines[targets] = tuple(best[rank] for rank in sorted(best))
    return RanksData(scene, lines)


def draw_ranks(data: RanksData, ax: Axes) -> None:
    """Lines through the best adapter at each rank, labelled at their ends; the others as points beside them."""
    scene = data.scene
    axes.quiet(ax)
    if not scene.points:
        nothing_to_draw(ax, "No trial has a score yet.")
        return
    axes.axis_titles(ax, "rank", f"{scene.unit.axis}, mean over folds")
    limits = axes.score_limits(
        [point.score for point in scene.points],
        scene.best_score,
        scene.margin,
        [line.score for line in scene.baselines],
    )
    axes.score_axis(ax, scene.unit, limits)
    axes.log_x(ax, [point.rank for point in scene.points], gap=_RANK_GAP)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    legend_rows(ax, scene.encoding, colours=True, hollow=any(not point.finished for point in scene.points))
    if scene.best_score is not None:
        axes.margin_band(ax, scene.best_score, scene.margin, scene.unit)
    places = _places(scene, ax)
    for targets, line in data.lines.items():
        ax.plot(
            [places[point.trial] for point in line], [max(point.score, limits[0]) for point in line],
            color=scene.encoding.colours[targets], linewidth=1.8, zorder=2, solid_joinstyle="round",
        )  # fmt: skip
    on_lines = {point.trial for line in data.lines.values() for point in line}
    for point in scene.points:
        draw_point(ax, scene, point, places[point.trial], limits, faint=point.trial not in on_lines)
    draw_baselines(ax, scene, limits)
    note_points_below(ax, scene.points, scene, limits)
    name_points(ax, scene, places, limits, _along_lines(data, places, limits), ranks=False)


def _places(scene: Landscape, ax: Axes) -> dict[int, float]:
    """x by trial: its rank, each target set a little to one side, so that lines do not hide each other."""
    low, high = ax.get_xlim()
    points = min(_DODGE_POINTS, _MOST_DODGE_POINTS / len(scene.encoding.colours))
    step = (high / low) ** (points / axes.width_in_points(ax))
    order = {targets: place for place, targets in enumerate(scene.encoding.colours)}
    middle = (len(order) - 1) / 2
    return {point.trial: point.rank * step ** (order[point.targets] - middle) for point in scene.points}


def _along_lines(
    data: RanksData, places: Mapping[int, float], limits: tuple[float, float]
) -> list[tuple[float, float]]:
    samples: list[tuple[float, float]] = []
    for line in data.lines.values():
        for start, end in pairwise(line):
            share = np.linspace(0, 1, 40)
            x = places[start.trial] ** (1 - share) * places[end.trial] ** share
            y = np.maximum(start.score + (end.score - start.score) * share, limits[0])
            samples += zip(x.tolist(), y.tolist(), strict=True)
    return samples
