"""Fold by fold: how the finalists differ from the best on the same parts of the data.

Raw fold scores scatter by several points because some folds are harder for everybody. Paired with the best on the same
fold that common part cancels, and what is left is the evidence of the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lora_search.plots import axes
from lora_search.plots.encoding import BAND, BAND_EDGE, FAINT, INK, MUTED, PAPER
from lora_search.plots.formats import adapter, count, percent
from lora_search.plots.landscape import Landscape, Point, gain_interval, landscape
from lora_search.plots.marks import nothing_to_draw, roles

MOST_ROWS = 8
_WORD_GAP, _PROBABILITY_WIDTH = 7.0, 48.0


@dataclass(frozen=True)
class FoldRow:
    """One finalist.

    Attributes:
        point: the trial.
        names: its roles (``recommended``, ``the guess``), may be empty.
        differences: score minus the best's score on each shared (repeat, fold), in raw metric units; of a loss the
            other way round, so that more is better.
        mean: their mean.
        interval: where the true mean lies, as the verdict has it; None if unknown.
        probability: that it is not worse than the best by more than the margin; NaN if unknown.
    """

    point: Point
    names: tuple[str, ...]
    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    probability: float


@dataclass(frozen=True)
class FoldsData:
    """Finalists from the fewest to the most adapter parameters; the best itself is the zero line."""

    scene: Landscape
    rows: tuple[FoldRow, ...]


def folds_data(trials: pd.DataFrame, cells: pd.DataFrame, verdict: Mapping[str, Any]) -> FoldsData:
    """The named trials, then what keeps the verdict open, then the likeliest to be not worse; at most ``MOST_ROWS``."""
    scene = landscape(trials, cells, verdict)
    table = cells[cells["state"] == "complete"].pivot_table(index=["repeat", "fold"], columns="trial", values="score")
    if scene.best is None or scene.best not in table:
        return FoldsData(scene, ())
    comparisons = {int(item["trial"]): item for item in verdict.get("comparisons") or ()}
    differences = table.sub(table[scene.best], axis=0).map(scene.unit.merit)
    paired = {int(str(trial)) for trial, any_shared in differences.notna().any().items() if any_shared}
    finalists = [point for point in _finalists(scene, comparisons) if point.trial in paired][:MOST_ROWS]
    rows = [
        _row(point, roles(scene).get(point.trial, ()), differences[point.trial], comparisons.get(point.trial, {}))
        for point in sorted(finalists, key=lambda point: (point.adapter_parameters, point.trial))
    ]
    return FoldsData(scene, tuple(rows))


def _finalists(scene: Landscape, comparisons: Mapping[int, Mapping[str, Any]]) -> list[Point]:
    """Finished trials other than the best, the most telling first."""
    chosen = scene.point(scene.recommended)
    most = math.inf if chosen is None else chosen.adapter_parameters

    def order(point: Point) -> tuple[bool, bool, float, int]:
        comparison = comparisons.get(point.trial, {})
        asked = point.adapter_parameters < most and comparison.get("status") == "open"
        likely = float(np.nan_to_num(_probability(comparison)))
        return point.trial not in roles(scene), not asked, -likely, point.adapter_parameters

    return sorted((point for point in scene.points if point.finished and point.trial != scene.best), key=order)


def _row(point: Point, names: tuple[str, ...], differences: pd.Series, comparison: Mapping[str, Any]) -> FoldRow:
    paired = tuple(float(value) for value in differences.dropna())
    mean = sum(paired) / len(paired) if paired else math.nan
    return FoldRow(point, names, paired, mean, gain_interval(comparison), _probability(comparison))


def _probability(comparison: Mapping[str, Any]) -> float:
    value = comparison.get("probability_not_worse")
    return math.nan if value is None else float(value)


def draw_folds(data: FoldsData, ax: Axes) -> None:
    """One row per finalist: a dot per fold, the mean and its interval, against the best at zero and the margin band."""
    axes.quiet(ax)
    if not data.rows:
        alone = data.scene.best is not None
        nothing_to_draw(ax, "Only one finished trial: nothing to compare." if alone else "No finished trial yet.")
        return
    unit, margin = data.scene.unit, data.scene.margin
    axes.axis_titles(ax, f"difference to the best on the same fold, in {unit.measure}")
    _difference_axis(ax, data)
    ax.axvspan(-margin, 0, color=BAND, linewidth=0, zorder=0)
    rows = np.arange(len(data.rows))
    for end, colour in ((-margin, BAND_EDGE), (0.0, MUTED)):  # not through the words above a row
        ax.vlines([end] * len(rows), rows - 0.45, rows + 0.18, color=colour, linewidth=0.8, zorder=0.5)
    for place, row in enumerate(data.rows):
        _draw_row(ax, data.scene, row, len(data.rows) - 1 - place)
    _name_ends(ax, data)


def _difference_axis(ax: Axes, data: FoldsData) -> None:
    """Limits around dots and band; rows one unit apart with room for their words above."""
    margin = data.scene.margin
    dots = [d for row in data.rows for d in row.differences] + [-1.6 * margin, 0.6 * margin]
    span = max(dots) - min(dots) or 0.01
    ends = [end for row in data.rows for end in row.interval or ()]
    reach = [*dots, *np.clip(ends, min(dots) - span / 2, max(dots) + span / 2)]
    ax.set_xlim(min(reach) - 0.04 * span, max(reach) + 0.04 * span)
    ax.set_ylim(-0.45, len(data.rows) - 0.15)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    axes.linear_ticks(ax.xaxis, data.scene.unit.per, signed_values=True)


def _draw_row(ax: Axes, scene: Landscape, row: FoldRow, y: float) -> None:
    colour, marker = scene.encoding.colours[row.point.targets], scene.encoding.markers[row.point.layers]
    ax.plot([0, 1], [y, y], transform=ax.get_yaxis_transform(), color=FAINT, linewidth=0.5, zorder=0.6)
    if row.interval is not None:
        ax.plot(row.interval, [y, y], color=colour, linewidth=2.4, alpha=0.3, zorder=2, solid_capstyle="butt")
    ax.plot(
        row.differences, [y] * len(row.differences), linestyle="none", marker="o", markersize=5, color=colour,
        markeredgecolor=PAPER, markeredgewidth=0.5, zorder=3,
    )  # fmt: skip
    ax.plot(
        [row.mean], [y], linestyle="none", marker=marker, markersize=axes.MARKER_SIZE + 1.5, color=colour,
        markeredgecolor=PAPER, markeredgewidth=1.0, zorder=4,
    )  # fmt: skip
    _write_row(ax, row, y)


def _write_row(ax: Axes, row: FoldRow, y: float) -> None:
    """Above the row: role, adapter and (where it fits) parameters on the left, the probability on the right."""
    room = axes.width_in_points(ax) - _PROBABILITY_WIDTH
    words, widths = _fitting_words(ax, row, room)
    size = axes.FONT_SIZE * min(1.0, room / sum(widths))
    x = 0.0
    for (text, colour, weight), width in zip(words, widths, strict=True):
        _beside(ax, text, (0, y), (x, 8), "left", colour=colour, fontsize=size, fontweight=weight)
        x += width * size / axes.FONT_SIZE
    if not math.isnan(row.probability):
        _beside(ax, percent(row.probability), (1, y), (0, 8), "right", colour=INK)


def _fitting_words(ax: Axes, row: FoldRow, room: float) -> tuple[list[tuple[str, str, str]], list[float]]:
    """(text, colour, weight) and widths of the longest of several wordings that fits; else the shortest."""
    point = row.point
    for longest, parameters in ((28, True), (28, False), (16, False), (9, False)):
        words = [
            (", ".join(row.names), INK, "bold"),
            (adapter(point.rank, point.targets, point.layers, longest, point.alpha, point.variants), INK, "normal"),
            (count(point.adapter_parameters) if parameters else "", MUTED, "normal"),
        ]
        words = [word for word in words if word[0]]
        widths = [axes.text_size(ax, text, weight == "bold")[0] + _WORD_GAP for text, _, weight in words]
        if sum(widths) <= room:
            break
    return words, widths


def _name_ends(ax: Axes, data: FoldsData) -> None:
    """Above the plot: what zero and the edge of the band are, and what the column of probabilities says."""
    scene, top = data.scene, ax.get_ylim()[1]
    ends = [(0.0, "best", "left", 3)]
    if scene.margin > 0:
        ends.append((-scene.margin, f"{scene.unit.worse}{scene.unit.amount(scene.margin)}", "right", -3))
    for x, words, align, shift in ends:
        ax.annotate(
            words, (x, top), (shift, 3), textcoords="offset points", ha=align, va="bottom", fontsize=axes.FONT_SIZE,
            color=MUTED, annotation_clip=False,
        )  # fmt: skip
    _beside(ax, f"P(within {scene.unit.amount(scene.margin)})", (1, top), (0, 17), "right", colour=MUTED)


def _beside(
    ax: Axes,
    text: str,
    spot: tuple[float, float],
    offset: tuple[float, float],
    align: str,
    *,
    colour: str,
    **style: Any,
) -> None:
    """Text at a fraction of the width and a row, shifted by points."""
    ax.annotate(
        text, spot, offset, xycoords=ax.get_yaxis_transform(), textcoords="offset points", ha=align, va="bottom",
        color=colour, annotation_clip=False, **({"fontsize": axes.FONT_SIZE} | style),
    )  # fmt: skip
