"""The figures of a study: each a ``*_data`` and a ``draw_*`` put on paper, in two widths, as matplotlib Figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_search.plots.encoding import PAPER
from lora_search.plots.folds import FoldsData, draw_folds, folds_data
from lora_search.plots.importance import ImportanceData, draw_importance, importance_data
from lora_search.plots.landscape import Landscape
from lora_search.plots.ranks import RanksData, draw_ranks, ranks_data
from lora_search.plots.rates import RatesData, draw_rates, rates_data
from lora_search.plots.tradeoff import TradeoffData, draw_tradeoff, parameters_data, time_data
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.judging import judge
from lora_search.statistics.recorded import RecordedStudy

Width = Literal["wide", "narrow"]

_AIR, _SEEN = 0.07, 0.005
"""Inches: between content and the edge above and below, half of it beside; and what of that may lack unseen."""
_LEAST_AXES = 0.4
"""Share of the width that the axes keep, whatever stands beside them."""
_MOST_DRAWINGS = 3
_INCHES: Mapping[Width, float] = {"wide": 7.6, "narrow": 4.3}


@dataclass(frozen=True)
class PlotData:
    """Everything the figures draw, computed once for both widths."""

    parameters: TradeoffData
    time: TradeoffData
    ranks: RanksData
    rates: RatesData
    folds: FoldsData
    importance: ImportanceData


@dataclass(frozen=True)
class _Sheet:
    """Inches around the axes, and of the axes themselves."""

    left: float
    right: float
    top: float
    bottom: float
    height: float


_SCATTER = _Sheet(left=0.52, right=0.95, top=0.55, bottom=0.6, height=3.1)
_WORDS = _Sheet(left=0.2, right=0.2, top=0.1, bottom=0.1, height=0.6)


def plot_data(tables: RecordedStudy, verdict: Mapping[str, Any]) -> PlotData:
    """Compute what the figures draw.

    Args:
        tables: the study's frames.
        verdict: the mapping of ``verdict.json``.
    """
    frames = (tables.trials, tables.cells, verdict)
    return PlotData(
        parameters_data(*frames),
        time_data(*frames),
        ranks_data(*frames),
        rates_data(tables, by_adapter(tables), verdict),
        folds_data(*frames),
        importance_data(*frames),
    )


def figures(tables: RecordedStudy, verdict: Mapping[str, Any] | None, width: Width = "wide") -> dict[str, Figure]:
    """All figures of a study, by name.

    Args:
        tables: the study's frames.
        verdict: the mapping of ``verdict.json``; None, as before the first one, judges what there is.
        width: ``wide`` for a page or a notebook, ``narrow`` for a phone.

    Returns:
        ``score_by_parameters``, ``score_by_time``, ``score_by_rank``, ``score_by_rate``, ``folds`` and ``importance``.
    """
    return draw_all(plot_data(tables, judge(tables).to_dict() if verdict is None else verdict), width)


def draw_all(data: PlotData, width: Width) -> dict[str, Figure]:
    """Draw what ``plot_data`` computed."""
    rows, bars = len(data.folds.rows), len(data.importance.bars)
    folds = _Sheet(left=0.2, right=0.2, top=0.5, bottom=0.55, height=0.46 * rows) if rows else _WORDS
    importance = _Sheet(left=1.25, right=0.2, top=0.2, bottom=0.55, height=0.34 * bars) if bars else _WORDS
    scene = data.ranks.scene
    return {
        "score_by_parameters": scatter(scene, lambda ax: draw_tradeoff(data.parameters, ax), width),
        "score_by_time": scatter(scene, lambda ax: draw_tradeoff(data.time, ax), width),
        "score_by_rank": scatter(scene, lambda ax: draw_ranks(data.ranks, ax), width),
        "score_by_rate": scatter(scene, lambda ax: draw_rates(data.rates, ax), width),
        "folds": _sheet(folds, width, lambda ax: draw_folds(data.folds, ax)),
        "importance": _sheet(importance, width, lambda ax: draw_importance(data.importance, ax)),
    }


def scatter(scene: Landscape, draw: Callable[[Axes], None], width: Width = "wide") -> Figure:
    """One figure of points by score; a line of words where there is no point yet."""
    return _sheet(_SCATTER if scene.points else _WORDS, width, draw)


def _sheet(sheet: _Sheet, width: Width, draw: Callable[[Axes], None]) -> Figure:
    """A figure whose axes have the asked size; drawn by matplotlib's defaults whatever style the caller has set.

    A long legend, title or number may need more room beside the axes than the sheet has; then it is drawn again with
    more: on taller paper, or on narrower axes, which may in turn break a title into more lines.
    """
    with style.context("default"):
        for _ in range(_MOST_DRAWINGS):
            figure, beyond = _draw_on(sheet, _INCHES[width], draw)
            if not beyond:
                break
            sheet = replace(sheet, **{side: getattr(sheet, side) + more for side, more in beyond.items()})
    return figure


def _draw_on(sheet: _Sheet, inches: float, draw: Callable[[Axes], None]) -> tuple[Figure, dict[str, float]]:
    """The figure, and by how many inches its content leaves the paper on each side."""
    tall = sheet.top + sheet.height + sheet.bottom
    figure = Figure(figsize=(inches, tall), facecolor=PAPER)
    box = (sheet.left / inches, sheet.bottom / tall, (inches - sheet.left - sheet.right) / inches, sheet.height / tall)
    ax = figure.add_axes(box)
    draw(ax)
    content = ax.get_tightbbox()
    if content is None:
        return figure, {}
    left, bottom, right, top = (end / figure.dpi for end in content.extents)
    spare = (1 - _LEAST_AXES) * inches - sheet.left - sheet.right
    beyond = {
        "left": min(_AIR / 2 - left, spare / 2),
        "right": min(right + _AIR / 2 - inches, spare / 2),
        "top": top + _AIR - tall,
        "bottom": _AIR - bottom,
    }
    return figure, {side: more for side, more in beyond.items() if more > _SEEN}
