"""Marks the scatter plots share: a trial's point, names of the special ones, the note on what lies below the axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.markers import CARETDOWNBASE, CARETUPBASE

from lora_search.plots import axes
from lora_search.plots.axes import FONT_SIZE, MARKER_SIZE
from lora_search.plots.encoding import INK, MUTED, PAPER
from lora_search.plots.labels import Label, place_labels
from lora_search.plots.landscape import Landscape, Point

GUESS = "the guess"


def draw_point(
    ax: Axes, scene: Landscape, point: Point, x: float, limits: tuple[float, float], *, faint: bool = False
) -> None:
    """One trial: filled when finished, hollow when not, ringed when it has a name; an arrow below the axis."""
    colour, marker = scene.encoding.colours[point.targets], scene.encoding.markers[point.layers]
    if point.score < limits[0]:
        ax.plot([x], [limits[0]], marker="v", markersize=5, color=colour, clip_on=False, zorder=3, linestyle="none")
        return
    edges = dict.fromkeys(scene.guesses, (MUTED, 0.8))
    edges |= {scene.best: (INK, 0.8)} if scene.best is not None else {}
    edges |= {scene.recommended: (INK, 1.6)} if scene.recommended is not None else {}
    faint = faint and point.trial not in edges
    ax.plot(
        [x], [point.score], linestyle="none", marker=marker, zorder=4, alpha=0.45 if faint else None, clip_on=False,
        markersize=MARKER_SIZE - 1.5 * faint, markerfacecolor=colour if point.finished else PAPER,
        markeredgecolor=PAPER if point.finished else colour, markeredgewidth=0.8 if point.finished else 1.1,
    )  # fmt: skip
    if point.trial in edges:
        edge, line = edges[point.trial]
        ax.plot(
            [x], [point.score], linestyle="none", marker="o", markersize=MARKER_SIZE + 6.5, markerfacecolor="none",
            markeredgecolor=edge, markeredgewidth=line, zorder=5, clip_on=False,
        )  # fmt: skip


def draw_interval(ax: Axes, scene: Landscape, point: Point, x: float, limits: tuple[float, float]) -> None:
    """A thin bar over the interval of a finished trial, where there is one; an arrowhead where it leaves the axis."""
    if not point.finished or point.low is None or point.high is None:
        return
    colour = scene.encoding.colours[point.targets]
    ax.plot(
        [x, x], [point.low, point.high], color=colour, linewidth=1.1, alpha=0.45, zorder=2, solid_capstyle="butt",
    )  # fmt: skip
    for beyond, edge, head in (
        (point.low < limits[0], limits[0], CARETDOWNBASE),
        (point.high > limits[1], limits[1], CARETUPBASE),
    ):
        if beyond:
            ax.plot([x], [edge], marker=head, markersize=4, color=colour, alpha=0.45, clip_on=False, linestyle="none")


def name_points(
    ax: Axes, scene: Landscape, places: Mapping[int, float], limits: tuple[float, float],
    lines: Sequence[tuple[float, float]], *, ranks: bool = True,
) -> None:  # fmt: skip
    """Name the recommended, the best and the guesses beside their points; where they coincide, in one label.

    Args:
        ax: axes with their final limits.
        scene: who is who.
        places: x of every drawn trial.
        limits: of the score axis.
        lines: points along drawn lines, which labels avoid.
        ranks: whether to add the rank (not where an axis shows it).
    """
    spots = {p.trial: (places[p.trial], max(p.score, limits[0])) for p in scene.points if p.trial in places}
    rank = {point.trial: f": r={point.rank}" if ranks else "" for point in scene.points}
    labels = [
        Label(*spots[trial], ", ".join(words) + rank[trial], strong=trial == scene.recommended)
        for trial, words in roles(scene).items()
        if trial in spots
    ]
    place_labels(ax, labels, list(spots.values()), lines)


def roles(scene: Landscape) -> dict[int, tuple[str, ...]]:
    """What each named trial is, the most important first: ``{3: ("recommended", "best"), 0: ("the guess",)}``."""
    named: dict[int, tuple[str, ...]] = {}
    if scene.recommended is not None:
        named[scene.recommended] = ("recommended" if scene.decided else "recommended so far",)
    if scene.best is not None:
        same = scene.best == scene.recommended
        named[scene.best] = ("best so far",) if same and not scene.decided else (*named.get(scene.best, ()), "best")
    for trial in scene.guesses:
        named[trial] = (*named.get(trial, ()), GUESS if len(scene.guesses) == 1 else "guess")
    return named


def draw_baselines(ax: Axes, scene: Landscape, limits: tuple[float, float]) -> None:
    """A dotted line for each thing that is no adapter, named at its left end; one above the axis on its upper edge."""
    low, high = limits
    shown = [line for line in scene.baselines if line.score >= low]
    gap = 11.0 / axes.height_in_points(ax) * (high - low)
    for line, y in zip(shown, axes.spread([min(line.score, high) for line in shown], gap), strict=True):
        ax.axhline(min(line.score, high), color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.8)
        ax.annotate(
            f"{line.name} {scene.unit.number(line.score)}", (0, y), (4, 1.5), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=FONT_SIZE - 1, color=MUTED, va="bottom",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}, zorder=1.2,
        )  # fmt: skip


def note_points_below(ax: Axes, points: Sequence[Point], scene: Landscape, limits: tuple[float, float]) -> None:
    """The scores of points drawn as arrows on the lower edge, and of baselines below it: above the plot, or where there
    is no room, under the horizontal title."""
    below = sorted(point.score for point in points if point.score < limits[0])
    names = [f"{line.name} {scene.unit.number(line.score)}" for line in scene.baselines if line.score < limits[0]]
    if not below and not names:
        return
    words = ", ".join(scene.unit.number(score) for score in below[:4])
    more = f" and {len(below) - 4} more" if len(below) > 4 else ""
    told = "; ".join(part for part in (words + more, *names) if part)
    note = f"below the axis: {told}"
    if axes.text_size(ax, note)[0] >= axes.room_beside_title(ax):
        axes.say_below(ax, note)
        return
    ax.annotate(
        note, (1, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=FONT_SIZE - 1,
        color=MUTED, va="bottom", ha="right", bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
        zorder=6 if below else 1.2,
    )  # fmt: skip


def nothing_to_draw(ax: Axes, why: str) -> None:
    """An empty plot that says why it is empty."""
    ax.set(xticks=[], yticks=[], xlabel="")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", fontsize=FONT_SIZE + 1, color=MUTED)
