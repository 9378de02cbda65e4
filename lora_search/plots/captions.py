"""How to read each figure, in words that fit the study it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lora_search.plots.figures import PlotData
from lora_search.plots.folds import FoldsData
from lora_search.plots.formats import level, percent
from lora_search.plots.importance import ImportanceData
from lora_search.plots.landscape import Landscape
from lora_search.plots.ranks import RanksData
from lora_search.plots.rates import RatesData
from lora_search.plots.tradeoff import TradeoffData


@dataclass(frozen=True)
class Caption:
    """A title and the sentences beside the figure; ``drawn`` is False where there was nothing to draw yet."""

    title: str
    text: str
    drawn: bool


def captions(data: PlotData) -> Mapping[str, Caption]:
    """One caption per figure, under the figure's name."""
    return {
        "score_by_parameters": Caption(
            "Score against adapter size", _parameters(data.parameters), bool(data.parameters.x)
        ),
        "score_by_time": Caption("Score against training time", _time(data.time), bool(data.time.x)),
        "score_by_rank": Caption("Score by rank", _ranks(data.ranks), bool(data.ranks.scene.points)),
        "score_by_rate": Caption("Score by learning rate", _rates(data.rates), bool(data.rates.points)),
        "folds": Caption("The finalists, fold by fold", _folds(data.folds), bool(data.folds.rows)),
        "importance": Caption("What moved the score", importance_caption(data.importance), bool(data.importance.bars)),
    }


def page_captions(scene: Landscape) -> Mapping[str, str]:
    """How to read the figures of the page that follow the verdict, under the figures' names there.

    Args:
        scene: of the verdict that is shown.
    """
    amount = scene.unit.amount(scene.margin)
    return {
        "cost": " ".join(
            [
                "Each point is one adapter at its best setting: its mean score over the folds, against what it costs"
                f"{_head(scene)}. {_keys(scene)}",
                *_band(scene),
                *_front(scene),
                *_missing(scene),
            ]
        ),
        "probability": (
            f"The decision itself, from the fewest adapter parameters to the most: how sure it is that an adapter is "
            f"within {amount} of whichever is truly best. Recommended is the first that reaches the shaded part, "
            f"{level(scene.confidence)}; an open one before it keeps the verdict open."
        ),
        "folds": (
            "Each small dot is one fold: the score minus the best's on the same fold, which cancels what makes a fold "
            f"hard for everybody. The large marker is the mean. On the right, the probability of being within {amount} "
            "of the best. Select adapters to see them here."
        ),
    }


def _parameters(data: TradeoffData) -> str:
    scene = data.scene
    if not scene.points:
        return "Drawn once a trial has a score."
    parts = [
        "Each point is one adapter at its best setting: its mean score over the folds and its parameters"
        f"{_head(scene)}. {_keys(scene)}"
    ]
    return " ".join([*parts, *_band(scene), *_front(scene), *_missing(scene)])


def _time(data: TradeoffData) -> str:
    if not data.x:
        return "Drawn once a training has been timed."
    if data.cost == "wall":
        clock = "the wall clock of one training, averaged over the trial's folds; each was trained alone"
    else:
        clock = (
            "compute time of one training, averaged over the trial's folds: its share of the pack it was trained in, "
            "by the token-layers it processed. Several trainings ran at once, so the wall clock belongs to the pack "
            "and not to one adapter"
        )
    return (
        f"The same scores against {clock}. Adapting only top layers is faster: nothing below them is trained through."
    )


def _ranks(data: RanksData) -> str:
    if not data.scene.points:
        return "Drawn once a trial has a score."
    faint = len(data.scene.points) > sum(len(line) for line in data.lines.values())
    return (
        "Each line joins the best adapter of one target set at each rank, each at its own learning rate"
        + (", the fainter points are its other adapters" if faint else "")
        + ". Where a line is flat, more rank bought nothing. Ranks that were tried more often had more chances of a "
        "lucky one, so small steps mean little: the band shows what counts."
    )


def _rates(data: RatesData) -> str:
    if not data.points:
        return "Drawn once a trial has a score."
    if not data.curves:
        return "Each point is one trial. All adapters were trained at one learning rate each."
    return (
        "Each point is one setting, hollow where it was not trained to the end. The line of a rank is what the study "
        "expects of that rank's best adapter at other rates, from all its trainings together; the ring is where it "
        "expects the most. A rate that suits one rank is too small or too large for another: each adapter is compared "
        "at its own."
    )


def _folds(data: FoldsData) -> str:
    scene = data.scene
    if not data.rows:
        return "Drawn once two trials were trained to the end."
    return (
        "Each small dot is one fold: the trial's score minus the best's on the same fold, which cancels what makes a "
        f"fold hard for everybody. The large marker is the mean. {_bars(scene)} On the right, the probability that the "
        f"trial is within {scene.unit.amount(scene.margin)} of the best, whichever that is. "
        "From the fewest adapter parameters to the most."
    )


def importance_caption(data: ImportanceData) -> str:
    """What was done to find out, and whether to believe it."""
    if not data.bars:
        return data.problem or ""
    verdict = (
        f"It explains {percent(max(0.0, data.explained))} of the variance of trials it has not seen."
        if data.problem is None
        else data.problem
    )
    stopped = (
        f" The {data.stopped} that were not trained to the end count with what their folds make believable."
        if data.stopped
        else ""
    )
    return (
        f"A random forest learns the score from the hyperparameters of {data.trials} trials; each column is then "
        "shuffled and its prediction of held-out trials gets worse by this much. Dot: median over random splits; bar: "
        f"the middle 80 %. A bar that reaches zero is no evidence. {verdict}{stopped} "
        "Holds for the ranges searched here, not beyond."
    )


def _keys(scene: Landscape) -> str:
    """Legends leave out what has a single value; the caption names it."""
    targets, layers = list(scene.encoding.colours), list(scene.encoding.markers)
    if not targets:
        return ""
    parts = [
        "Colour is the target set" if len(targets) > 1 else f"All adapt {targets[0]}",
        "the marker is the layers" if len(layers) > 1 else f"layers: {layers[0]}",
    ]
    return ", ".join(parts) + "."


def _head(scene: Landscape) -> str:
    return " (the task head, the same for all, is not counted)" if scene.head_parameters else ""


def _band(scene: Landscape) -> list[str]:
    """Of the margin and of the bars, where they are drawn."""
    if scene.best_score is None:
        return []
    band = f"The shaded band is the margin, {scene.unit.amount(scene.margin)} down from the best."
    if all(point.low is None for point in scene.points):
        return [band]
    return [band, _bars(scene), "The best, from which the others are measured, has none."]


def _front(scene: Landscape) -> list[str]:
    return ["The dashed line steps through the adapters that no smaller one beats."] if len(scene.front) > 1 else []


def _bars(scene: Landscape) -> str:
    return (
        f"The bar shows where the trial may truly stand, each end with {level(scene.confidence)} confidence: a trial "
        "whose bar stays above the margin is not worse, one whose bar lies wholly below it is worse, one whose bar "
        "crosses it is open."
    )


def _missing(scene: Landscape) -> list[str]:
    parts = []
    if scene.adjusted:
        parts.append(
            "Trials that were not trained on the same folds are placed by their difference to the best on shared folds."
        )
    if any(not point.finished for point in scene.points):
        parts.append("Hollow points were not trained to the end and are not recommended.")
    if scene.unscored:
        one = len(scene.unscored) == 1
        listed = ", ".join(str(trial) for trial in scene.unscored)
        parts.append(f"{'Trial' if one else 'Trials'} {listed} {'has' if one else 'have'} no score and no point.")
    return parts
