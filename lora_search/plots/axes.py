"""What all figures share: quiet axes, a score scale in the metric's unit, log ticks at real values.

Everything is set on the given axes; matplotlib's global style is neither read nor written for it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lora_search.plots.encoding import BAND, BAND_EDGE, FAINT, MUTED
from lora_search.plots.formats import Unit, signed

FONT_SIZE = 9.0
MARKER_SIZE = 6.5
TICK_GAP = 34.0
_ABOVE = (0, 7)
"""Where the vertical title lies: points from the upper left corner."""


def pixels_per_point(ax: Axes) -> float:
    """Device pixels per typographic point."""
    return float(figure_of(ax).dpi) / 72


def quiet(ax: Axes) -> None:
    """No box, thin axes, small grey tick labels."""
    ax.set_facecolor("none")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
        ax.spines[side].set_linewidth(0.8)
    ax.tick_params(colors=FAINT, labelcolor=MUTED, labelsize=FONT_SIZE, length=3.5, width=0.8)


def axis_titles(ax: Axes, x: str, y: str = "") -> None:
    """The horizontal title, broken to the width of the axes; the vertical one, lying flat above its axis."""
    ax.set_xlabel(broken(ax, x), fontsize=FONT_SIZE, color=MUTED, labelpad=6)
    if y:
        ax.annotate(
            y, (0, 1), _ABOVE, xycoords="axes fraction", textcoords="offset points", ha="left", va="bottom",
            fontsize=FONT_SIZE, color=MUTED, annotation_clip=False,
        )  # fmt: skip


def say_below(ax: Axes, note: str) -> None:
    """A note under the horizontal title."""
    ax.set_xlabel(f"{ax.get_xlabel()}\n{broken(ax, note)}")


def broken(ax: Axes, words: str) -> str:
    """Words in lines that fit the width of the axes."""
    return "\n".join(textwrap.wrap(words, max(20, int(width_in_points(ax) / (FONT_SIZE * 0.56)))))


def room_beside_title(ax: Axes) -> float:
    """Width in points that the vertical title leaves above the plot."""
    titles = [text.get_text() for text in ax.texts if text.get_position() == _ABOVE]
    return width_in_points(ax) - sum(text_size(ax, title)[0] for title in titles)


def width_in_points(ax: Axes) -> float:
    """Width of the axes in typographic points, the unit of font sizes."""
    return ax.get_position().width * figure_of(ax).get_figwidth() * 72


def height_in_points(ax: Axes) -> float:
    """Height of the axes in typographic points."""
    return ax.get_position().height * figure_of(ax).get_figheight() * 72


def score_limits(
    scores: Sequence[float], best: float | None, margin: float, others: Sequence[float] = ()
) -> tuple[float, float]:
    """A range of scores that shows the contenders.

    One diverged trial at chance would flatten everything worth seeing, so the range reaches down from the top by at
    most three times the distance of the median, or four margins; what lies below is drawn on the lower edge.
    """
    top = max([*scores, *([] if best is None else [best])])
    ordered = sorted(scores)
    median = ordered[len(ordered) // 2]
    reach = max(3 * (top - median), 4 * margin)
    low = max(ordered[0], top - reach)
    span = max(top - low, 1.5 * margin or 1e-3)
    # what is no adapter and beats them all is shown with them, within reason
    higher = min(max(others, default=top), top + 2 * span)
    return top - span * 1.1, max(top, higher) + span * 0.2


def score_axis(ax: Axes, unit: Unit, limits: tuple[float, float]) -> None:
    """Scores upward in the unit of the metric, about five round ticks."""
    ax.set_ylim(*limits)
    linear_ticks(ax.yaxis, unit.factor, signed_values=False)


def linear_ticks(axis: Axis, factor: float, *, signed_values: bool) -> None:
    """Round ticks with just the decimals they need.

    Args:
        axis: with its final limits.
        factor: what values are multiplied by before they are written.
        signed_values: whether positive values carry a plus.
    """
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    ticks = axis.get_majorticklocs()
    step = abs(float(ticks[1] - ticks[0]) * factor) if len(ticks) > 1 else 1.0
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    if not math.isclose(step * 10**digits, round(step * 10**digits), rel_tol=1e-6):
        digits += 1

    def write(value: float, _: int | None = None) -> str:
        text = signed(value * factor, digits)
        return text if signed_values else text.removeprefix("+")

    axis.set_major_formatter(FuncFormatter(write))


def margin_band(ax: Axes, best: float, margin: float, unit: Unit) -> None:
    """The scores a user accepts, from the best down to the margin; both ends are named beyond the right edge."""
    ax.axhspan(best - margin, best, color=BAND, linewidth=0, zorder=0)
    ax.axhline(best - margin, color=BAND_EDGE, linewidth=0.8, zorder=0.5)
    low, high = ax.get_ylim()
    gap = 11.0 / height_in_points(ax) * (high - low)
    lower, upper = spread([best - margin, best], gap)
    for text, y in ((f"best {unit.number(best)}", upper), (f"{unit.worse}{unit.step(margin)}", lower)):
        if text.startswith("best") or margin > 0:
            ax.annotate(
                text, (1, y), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                ha="left", fontsize=FONT_SIZE - 0.5, color=MUTED, annotation_clip=False,
            )  # fmt: skip


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions as near as possible to the wanted ones (in their order) and at least ``gap`` apart.

    Pool-adjacent-violators: what would collide becomes a block centred on the mean of its wishes.
    """
    blocks: list[list[int]] = []
    starts: list[float] = []
    for index in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        blocks.append([index])
        starts.append(wanted[index])
        while len(blocks) > 1 and starts[-2] + gap * len(blocks[-2]) > starts[-1]:
            merged = blocks.pop()
            blocks[-1] += merged
            starts.pop()
            starts[-1] = sum(wanted[i] - gap * place for place, i in enumerate(blocks[-1])) / len(blocks[-1])
    positions = {
        index: start + gap * place
        for start, block in zip(starts, blocks, strict=True)
        for place, index in enumerate(block)
    }
    return [positions[index] for index in range(len(wanted))]


def log_x(ax: Axes, values: Iterable[float], keep: Iterable[float] = (), gap: float = TICK_GAP) -> None:
    """A log axis over positive values, whose ticks are values that occur.

    Args:
        ax: the axes, already sized within its figure.
        values: where the points lie.
        keep: values to tick before others when there is no room for all (after the two ends).
        gap: least distance of two ticks in points; what a label needs.
    """
    ordered = sorted(set(values))
    _log_limits(ax, ordered)
    _ticks(ax, [ordered[0], ordered[-1], *keep, *ordered], gap)


def log_x_round(ax: Axes, values: Iterable[float]) -> None:
    """A log axis over positive measurements, with ticks at round numbers: 1, 2, 5, then 3, 1.5, 2.5, 7."""
    ordered = sorted(set(values))
    _log_limits(ax, ordered)
    low, high = ax.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_values = [step * 10.0**power for step in (1, 2, 5, 3, 1.5, 2.5, 7) for power in powers]
    inside = [value for value in round_values if low <= value <= high]
    _ticks(ax, inside if len(inside) > 1 else [ordered[0], ordered[-1]], TICK_GAP)


def _log_limits(ax: Axes, ordered: Sequence[float]) -> None:
    """A tenth of air on both sides, and a visible stretch around a single value."""
    ratio = ordered[-1] / ordered[0]
    air = max(ratio**0.1, 1.08 if ratio > 1 else 1.6)
    ax.set_xscale("log")
    ax.set_xlim(ordered[0] / air, ordered[-1] * air)


def _ticks(ax: Axes, wanted: Iterable[float], gap: float) -> None:
    """Ticks at the wanted values, the first come first, that leave room for each other's labels."""
    low, high = (math.log(limit) for limit in ax.get_xlim())
    room = gap / width_in_points(ax) * (high - low)
    chosen: list[float] = []
    for value in wanted:
        if all(abs(math.log(value / other)) >= room for other in chosen):
            chosen.append(value)
    ax.xaxis.set_major_locator(FixedLocator(sorted(chosen)))
    ax.xaxis.set_minor_locator(NullLocator())


def shorten(name: str, longest: int = 26) -> str:
    """A long list of module names, cut."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def text_size(ax: Axes, text: str, strong: bool = False) -> tuple[float, float]:
    """Width and height of a text in points, as this figure would set it."""
    probe = ax.text(0, 0, text, fontsize=FONT_SIZE, fontweight="bold" if strong else "normal")
    box = probe.get_window_extent()
    probe.remove()
    scale = pixels_per_point(ax)
    return box.width / scale, box.height / scale


def figure_of(ax: Axes) -> Figure:
    """The figure that holds the axes."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax must belong to a figure, got axes without one")
    return figure
