"""Which hyperparameters moved the score: permutation importance of a random forest, judged on trials it did not see.

A forest is fitted to (hyperparameters -> score) of the trials. For each column, held-out trials get values of other
trials at random; importance is how much larger the error of the prediction becomes (Breiman 2001, section 10). Held-out
trials only: on its own training trials a forest finds structure in noise, and with two dozen trials it always does.

Trials that racing stopped take part, being most of a study, with their scores as far as they can be believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lora_search.plots import axes
from lora_search.plots.encoding import FAINT, INK, MUTED
from lora_search.plots.landscape import Landscape, landscape
from lora_search.plots.marks import nothing_to_draw
from lora_search.statistics import believed_scores, score_matrix

FEWEST_TRIALS = 10
_REPEATS, _PARTS, _TREES = 8, 5, 30
_NAMES = {
    "rank": "rank", "alpha_over_rank": "alpha / rank", "targets": "target modules", "layers": "layers",
    "scaling": "scaling", "use_dora": "DoRA", "rank_pattern": "ranks by module",
    "learning_rate": "learning rate", "dropout": "dropout",
}  # fmt: skip


@dataclass(frozen=True)
class Importance:
    """Rise of the prediction error from one hyperparameter: median, 10th and 90th percentile over repeated splits."""

    name: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class ImportanceData:
    """What the forest found.

    Attributes:
        scene: what the other figures show.
        trials: how many the forest was fitted to.
        stopped: how many of those were not trained to the end.
        bars: the hyperparameters that vary, most important first; empty when there is nothing honest to show.
        explained: share of the variance of unseen trials the forest predicts (R^2); NaN without bars.
        problem: why there is nothing to show, or nothing to read into the order; None when all is well.
    """

    scene: Landscape
    trials: int
    stopped: int
    bars: tuple[Importance, ...]
    explained: float
    problem: str | None


def importance_data(
    trials: pd.DataFrame, cells: pd.DataFrame, verdict: Mapping[str, Any], *, seed: int = 0
) -> ImportanceData:
    """Importance over finished and stopped trials, of every hyperparameter that took more than one value.

    Args:
        trials, cells, verdict: as ``landscape`` takes them.
        seed: of the forest, the splits and the permutations.
    """
    scene = landscape(trials, cells, verdict)
    merits = cells.assign(score=cells["score"].map(scene.unit.merit))
    matrix = score_matrix(trials, merits, "score", states=("complete", "pruned"))
    chosen = trials[trials["trial"].isin(matrix.trials)].sort_values("trial")
    count, stopped = len(chosen), int((chosen["state"] == "pruned").sum())
    columns = _columns(chosen)

    def nothing(problem: str) -> ImportanceData:
        return ImportanceData(scene, count, stopped, (), float("nan"), problem)

    if count < FEWEST_TRIALS:
        plural = "trial" if count == 1 else "trials"
        return nothing(f"{count} {plural} with a score: too few to say, {FEWEST_TRIALS} needed.")
    if columns.shape[1] < 2:
        return nothing("Fewer than two hyperparameters varied: nothing to compare.")
    target = believed_scores(matrix.scores)
    if np.ptp(target) == 0:
        return nothing("All trials have the same score: nothing to explain.")
    rises, explained = _held_out_rises(columns.to_numpy(dtype=np.float64), target, seed)
    low, median, high = np.quantile(rises, [0.1, 0.5, 0.9], axis=0)
    bars = [
        Importance(_NAMES[str(name)], float(median[i]), float(low[i]), float(high[i]))
        for i, name in enumerate(columns.columns)
    ]
    bars.sort(key=lambda bar: -bar.median)
    problem = (
        None if explained > 0 else "The forest predicts unseen trials no better than their mean: read nothing into it."
    )
    return ImportanceData(scene, count, stopped, tuple(bars), explained, problem)


def _columns(trials: pd.DataFrame) -> pd.DataFrame:
    """One numeric column per varying hyperparameter: logarithms of ranks and learning rates, codes of names."""
    encoded = pd.DataFrame(
        {
            "rank": np.log2(trials["rank"].astype(float)),
            "alpha_over_rank": trials["alpha"] / trials["rank"],
            "targets": pd.Categorical(trials["targets"]).codes,
            "layers": pd.Categorical(trials["layers"]).codes,
            "scaling": pd.Categorical(trials["scaling"]).codes,
            "use_dora": trials["use_dora"].astype(float),
            "rank_pattern": pd.Categorical(trials["rank_pattern"]).codes,
            "learning_rate": np.log10(trials["learning_rate"].astype(float)),
            "dropout": trials["dropout"].astype(float),
        }
    )
    return encoded.loc[:, encoded.nunique() > 1]


def _held_out_rises(
    columns: NDArray[np.float64], target: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], float]:
    """Rise of the held-out root-mean-square error per repeat and column, and the median R^2 over repeats."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    generator = np.random.default_rng(seed)
    count, width = columns.shape
    rises, explained = [], []
    for repeat in range(_REPEATS):
        versions = np.repeat(columns[None], width + 1, axis=0)  # (width + 1, trials, width); the last one is untouched
        for column in range(width):
            versions[column, :, column] = columns[generator.permutation(count), column]
        predicted = np.empty((width + 1, count))
        for train, test in KFold(_PARTS, shuffle=True, random_state=seed + repeat).split(columns):
            forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed + repeat)
            forest.fit(columns[train], target[train])
            predicted[:, test] = forest.predict(versions[:, test].reshape(-1, width)).reshape(width + 1, -1)
        errors = np.sqrt(((predicted - target) ** 2).mean(axis=1))
        rises.append(errors[:-1] - errors[-1])
        explained.append(1 - errors[-1] ** 2 / float(target.var()))
    return np.array(rises), float(np.median(explained))


def draw_importance(data: ImportanceData, ax: Axes) -> None:
    """One row per hyperparameter: a dot at the median, a bar from the 10th to the 90th percentile."""
    axes.quiet(ax)
    if not data.bars:
        nothing_to_draw(ax, data.problem or "")
        return
    unit = data.scene.unit
    axes.axis_titles(ax, f"prediction error added by shuffling, in {unit.measure}")
    colour = INK if data.problem is None else MUTED
    for place, bar in enumerate(data.bars):
        y = len(data.bars) - 1 - place
        ax.axhline(y, color=FAINT, linewidth=0.5, zorder=0.6)
        ax.plot([bar.low, bar.high], [y, y], color=colour, linewidth=2.4, alpha=0.35, zorder=2, solid_capstyle="butt")
        ax.plot([bar.median], [y], linestyle="none", marker="o", markersize=axes.MARKER_SIZE, color=colour, zorder=3)
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(data.bars)), [bar.name for bar in reversed(data.bars)])
    ax.set_ylim(-0.6, len(data.bars) - 0.4)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    axes.linear_ticks(ax.xaxis, abs(unit.per), signed_values=False)
    if data.problem is not None:
        ax.annotate(
            axes.broken(ax, data.problem), (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points",
            va="bottom", fontsize=axes.FONT_SIZE, color=INK, annotation_clip=False,
        )  # fmt: skip
