"""Direct labels that do not overlap: each takes the nearest free place around its point.

Needs the final limits and size of the axes, so it is the last thing a drawing function does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from lora_search.plots.axes import FONT_SIZE, pixels_per_point, text_size
from lora_search.plots.encoding import INK, MUTED

_DISTANCES = (9.0, 15.0, 24.0, 36.0, 52.0, 72.0)
_LEADER_FROM = 20.0
_POINT_COST, _LINE_COST, _LEADER_COST = 4.0, 0.25, 2.0
_RING = 9.0
"""Room for the ring that is drawn around a labelled point."""


class _Side(NamedTuple):
    """A direction from the point (in distances) and which corner of the text lies there."""

    dx: float
    dy: float
    horizontal: Literal["left", "center", "right"]
    vertical: Literal["bottom", "center", "top"]


_SIDES = (
    _Side(1, 0, "left", "center"),
    _Side(0, 1, "center", "bottom"),
    _Side(-1, 0, "right", "center"),
    _Side(0, -1, "center", "top"),
    _Side(0.7, 0.7, "left", "bottom"),
    _Side(-0.7, 0.7, "right", "bottom"),
    _Side(0.7, -0.7, "left", "top"),
    _Side(-0.7, -0.7, "right", "top"),
    _Side(0, 1, "left", "bottom"),
    _Side(0, 1, "right", "bottom"),
    _Side(0, -1, "left", "top"),
    _Side(0, -1, "right", "top"),
)
_BEFORE = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}


@dataclass(frozen=True)
class Label:
    """Words for the point (x, y), in data coordinates."""

    x: float
    y: float
    text: str
    strong: bool = False


def place_labels(
    ax: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]], lines: Sequence[tuple[float, float]] = ()
) -> None:
    """Write the labels, the first one with the freest choice.

    Args:
        ax: axes with their final limits.
        labels: in order of importance.
        points: what a label must not cover, in data coordinates.
        lines: points along lines, which it should rather not cross.
    """
    scale = pixels_per_point(ax)
    obstacles = _in_points(ax, [*points, *lines])
    weights = np.array([_POINT_COST] * len(points) + [_LINE_COST] * len(lines))
    window = ax.get_window_extent()
    frame = Bbox.from_extents(*(value / scale for value in window.extents))
    taken: list[Bbox] = []
    anchors = _in_points(ax, [(label.x, label.y) for label in labels])
    for number, label in enumerate(_wrapped(ax, label, frame.width) for label in labels):
        anchor, rings = anchors[number], np.delete(anchors, number, axis=0)
        size = text_size(ax, label.text, label.strong)
        places = [(distance, side) for distance in _DISTANCES for side in _SIDES]
        boxes = [_box(anchor, size, *place) for place in places]
        costs = [
            distance / 8
            + _LEADER_COST * (distance > _LEADER_FROM)
            + _POINT_COST * _inside(rings, box.padded(_RING)).sum()
            + _cost(box, obstacles, weights, frame, taken)
            for box, (distance, _) in zip(boxes, places, strict=True)
        ]
        chosen = int(np.argmin(costs))
        taken.append(boxes[chosen])
        _write(ax, label, *places[chosen])


def _wrapped(ax: Axes, label: Label, width: float) -> Label:
    """Broken at its commas where it would take more than half of the width."""
    if text_size(ax, label.text, label.strong)[0] <= width / 2:
        return label
    return replace(label, text=label.text.replace(", ", ",\n"))


def _in_points(ax: Axes, points: Sequence[tuple[float, float]]) -> np.ndarray:
    pixels = ax.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))
    return np.asarray(pixels / pixels_per_point(ax))


def _box(anchor: np.ndarray, size: tuple[float, float], distance: float, side: _Side) -> Bbox:
    left = anchor[0] + side.dx * distance - size[0] * _BEFORE[side.horizontal]
    bottom = anchor[1] + side.dy * distance - size[1] * _BEFORE[side.vertical]
    return Bbox.from_bounds(left, bottom, *size)


def _inside(points: np.ndarray, room: Bbox) -> np.ndarray:
    """Which of the points, (points, 2), lie in the room."""
    return np.asarray((points > room.min).all(axis=1) & (points < room.max).all(axis=1))


def _cost(box: Bbox, obstacles: np.ndarray, weights: np.ndarray, frame: Bbox, taken: list[Bbox]) -> float:
    beyond = np.maximum([frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1], 0.0)
    inside = _inside(obstacles, box.padded(4))
    collisions = sum(1 for other in taken if box.padded(4).overlaps(other))
    return float(weights[inside].sum() + 100.0 * collisions + 2.0 * beyond.sum())


def _write(ax: Axes, label: Label, distance: float, side: _Side) -> None:
    ax.annotate(
        label.text, (label.x, label.y), (side.dx * distance, side.dy * distance), textcoords="offset points",
        ha=side.horizontal, va=side.vertical, fontsize=FONT_SIZE, fontweight="bold" if label.strong else "normal",
        color=INK, zorder=6, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 7}
        if distance > _LEADER_FROM else None,
    )  # fmt: skip
