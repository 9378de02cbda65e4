"""The key to colours and markers, as rows of words above the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from lora_search.plots.axes import FONT_SIZE, figure_of, shorten, text_size, width_in_points
from lora_search.plots.encoding import INK, MUTED, PAPER, Encoding
from lora_search.plots.formats import layers_name

_OFFSET, _LEADING, _GAP, _WORD = 28.0, 14.0, 12.0, 11.0


@dataclass(frozen=True)
class Entry:
    """A word of the key, and the marker before it."""

    name: str
    marker: str
    edge: str
    face: str


def legend_rows(ax: Axes, encoding: Encoding, *, colours: bool, hollow: bool) -> None:
    """Write the key; a dimension with a single value needs none.

    Args:
        ax: the axes, already sized within its figure.
        encoding: colours and markers.
        colours: whether to list the target sets (not where lines carry their own labels).
        hollow: whether hollow markers occur.
    """
    groups: list[list[Entry]] = []
    if colours and len(encoding.colours) > 1:
        groups.append([Entry(shorten(name), "o", colour, colour) for name, colour in encoding.colours.items()])
    layers = [Entry(shorten(layers_name(name)), mark, MUTED, MUTED) for name, mark in encoding.markers.items()]
    shapes = (layers if len(layers) > 1 else []) + ([Entry("not finished", "o", MUTED, PAPER)] if hollow else [])
    if shapes:
        groups.append(shapes)
    write_rows(ax, groups)


def write_rows(ax: Axes, groups: Sequence[Sequence[Entry]]) -> None:
    """Write groups of entries above the axes, in as few rows as fit."""
    rows = _flow(ax, groups)
    for number, row in enumerate(reversed(rows)):
        for x, entry in row:
            _write(ax, entry, x, _OFFSET + number * _LEADING)


def _flow(ax: Axes, groups: Sequence[Sequence[Entry]]) -> list[list[tuple[float, Entry]]]:
    """Entries with their offset from the left, in as few rows as the width allows.

    A group starts a row of its own unless everything fits in one.
    """
    room = width_in_points(ax) + 30
    widths = {entry.name: _WORD + text_size(ax, entry.name)[0] + _GAP for group in groups for entry in group}
    together = sum(widths.values()) + _GAP * len(groups) <= room
    rows: list[list[tuple[float, Entry]]] = []
    x = 0.0
    for group in groups:
        x = x + _GAP if together else room
        for entry in group:
            if not rows or x + widths[entry.name] > room:
                rows.append([])
                x = 0.0
            rows[-1].append((x, entry))
            x += widths[entry.name]
    return rows


def _write(ax: Axes, entry: Entry, x: float, y: float) -> None:
    """One marker and its word, at an offset in points from the upper left corner of the axes."""
    corner = offset_copy(ax.transAxes, figure_of(ax), x + 3, y, units="points")
    ax.add_artist(
        Line2D(
            [0], [1], transform=corner, linestyle="none", marker=entry.marker, markersize=5.5,
            markeredgecolor=entry.edge, markerfacecolor=entry.face, clip_on=False,
        )
    )  # fmt: skip
    ax.annotate(
        entry.name, (0, 1), (x + _WORD, y), xycoords="axes fraction", textcoords="offset points", va="center",
        fontsize=FONT_SIZE, color=INK, annotation_clip=False,
    )  # fmt: skip
