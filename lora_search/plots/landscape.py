"""The adapters of a study as points that may be compared: the one table behind the figures.

A study that looks for learning rates has several trials of one adapter, its settings: one of them stands for it, and
the others are kept apart.

A score averaged over a trial's own cells is not comparable with another's over different cells: an easy fold lifts it.
Each trial is therefore placed at *best score minus mean paired difference*, over the (repeat, fold) cells it shares
with the best, and never beyond what the metric can be. Where all trials have the same cells this is the plain mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lora_search.errors import StudyError
from lora_search.metrics import METRICS, direction
from lora_search.plots.encoding import Encoding
from lora_search.plots.formats import Unit, unit_of
from lora_search.spec import ADAPTER_FIELDS, variants_of
from lora_search.spec.baselines import TITLES


@dataclass(frozen=True)
class Point:
    """One trial with at least one finished cell.

    Attributes:
        learning_rate: at which it was trained.
        alpha: where another adapter of the study differs in nothing else; None where none does.
        variants: how it differs from a plain LoRA (``spec.variants_of``), but for what all adapters of the study have.
        score: paired with the best (module docstring), in raw metric units, more is better: a loss is negative.
        low, high: best score minus the ends of the verdict's interval (how much worse than the best the trial may truly
            be): below the margin band both for a worse trial, above its lower edge both for one that is not worse. None
            for the best itself, where nothing was compared, and where nothing is known of the noise.
        finished: whether the trial is complete and competes for the verdict.
        compute_seconds: mean over its finished cells of each cell's own share of its pack, by work done.
        wall_seconds: mean over its finished cells of the pack's clock divided evenly among its cells.
    """

    trial: int
    rank: int
    targets: str
    layers: str
    alpha: float | None
    variants: tuple[str, ...]
    learning_rate: float
    adapter_parameters: int
    score: float
    low: float | None
    high: float | None
    finished: bool
    compute_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Line:
    """What is no adapter and is compared with them: its name, and its mean score over its own folds."""

    name: str
    score: float


@dataclass(frozen=True)
class Landscape:
    """Every scored adapter, the three that have a name, and the yardstick.

    Attributes:
        points: one for each adapter, by trial number: the setting that the verdict speaks of; where it speaks of none,
            the one that came furthest.
        others: the other settings of the same adapters, by trial number.
        unscored: trials without a finished cell (failed, or still in their first), which cannot be drawn.
        best, recommended: trial numbers, None before a verdict.
        decided: whether the verdict is; otherwise the recommended is only the best guess so far.
        guesses: trials of origin ``guess`` among the points.
        margin: accepted loss against the best, in raw metric units.
        confidence: with which each end of an interval holds.
        adjusted: whether pairing moved any point away from the trial's own mean.
        head_parameters: of the task head, which every trial trains beside its adapter; 0 where there is none to train.
        baselines: the lowest score first.
    """

    points: tuple[Point, ...]
    others: tuple[Point, ...]
    unscored: tuple[int, ...]
    best: int | None
    recommended: int | None
    decided: bool
    guesses: tuple[int, ...]
    margin: float
    confidence: float
    unit: Unit
    encoding: Encoding
    adjusted: bool
    head_parameters: int
    baselines: tuple[Line, ...] = ()

    def point(self, trial: int | None) -> Point | None:
        """The point of a trial, if it has one."""
        return next((point for point in (*self.points, *self.others) if point.trial == trial), None)

    @property
    def best_score(self) -> float | None:
        """Score of the best, None before a verdict."""
        best = self.point(self.best)
        return None if best is None else best.score

    @property
    def front(self) -> tuple[Point, ...]:
        """The Pareto front of score up and adapter parameters down among finished trials, smallest first."""
        ordered = sorted(
            (point for point in self.points if point.finished), key=lambda p: (p.adapter_parameters, -p.score, p.trial)
        )
        front: list[Point] = []
        for point in ordered:
            if not front or point.score > front[-1].score:
                front.append(point)
        return tuple(front)


def landscape(trials: pd.DataFrame, cells: pd.DataFrame, verdict: Mapping[str, Any]) -> Landscape:
    """Place the trials of a study.

    Args:
        trials, cells: the frames of ``StudyTables``.
        verdict: the mapping of ``verdict.json``; its ``comparisons`` give the intervals.

    Raises:
        StudyError: the verdict names a trial the study does not have.
    """
    return Terrain(trials, cells, verdict.get("metric")).landscape(verdict)


class Terrain:
    """The trials of a study, to be placed for one verdict after another: what none of them changes is found out once.

    Args:
        trials, cells: the frames of ``StudyTables``.
        metric: by which they are placed; None where nobody has said.
    """

    def __init__(self, trials: pd.DataFrame, cells: pd.DataFrame, metric: str | None) -> None:
        self.metric = metric or "score"
        merit = unit_of(self.metric, 0.0).merit
        self.trials = trials.assign(score_mean=trials["score_mean"].map(merit))
        cells = cells.assign(score=cells["score"].map(merit))
        self._complete = cells[cells["state"] == "complete"]
        shares = self._complete.assign(wall_share=self._complete["wall_seconds"] / self._complete["pack_cells"])
        self._per_cell = shares.groupby("trial")[["seconds", "wall_share"]].mean().to_dict()
        self._own = self.trials.set_index("trial")["score_mean"].to_dict()
        self._rows = self.trials[self.trials["score_mean"].notna()].sort_values("trial").to_dict("records")
        self._guesses = [int(trial) for trial in trials.loc[trials["origin"] == "guess", "trial"]]
        self._encoding = Encoding.of(trials)
        self._progress = _progress(self.trials)
        self._twins = _twins(trials)
        variants = [set(_variants(row)) for row in self._rows]
        self._shared_variants = set.intersection(*variants) if variants else set()
        self._paired: dict[int | None, dict[int | None, float]] = {}

    def landscape(self, verdict: Mapping[str, Any]) -> Landscape:
        """As :func:`landscape`, for a verdict by the same metric."""
        best, recommended = (_named(verdict, role, self._own) for role in ("best", "recommended"))
        if best not in self._paired:
            own = math.nan if best is None else float(self._own[best])
            self._paired[best] = _paired_scores(self._complete, best, own)
        paired = self._paired[best]
        compared = verdict.get("comparisons") or ()
        # the others are measured from the best, and the best from a rival: its interval is not one of these
        differences = {item["trial"]: item for item in compared if item["trial"] != best}
        points = [self._point(row, paired, differences, paired.get(best, math.nan)) for row in self._rows]
        scored = {point.trial for point in points}
        standing = self._standing({best, recommended}, differences)
        unit = unit_of(self.metric, float(verdict.get("margin") or 0.0))
        return Landscape(
            points=tuple(point for point in points if point.trial in standing),
            others=tuple(point for point in points if point.trial not in standing),
            unscored=tuple(int(trial) for trial in self.trials["trial"] if trial not in scored),
            best=best,
            recommended=recommended,
            decided=verdict.get("status") == "decided",
            guesses=tuple(trial for trial in self._guesses if trial in scored),
            margin=float(verdict.get("margin") or 0.0),
            confidence=float(verdict.get("confidence") or 0.95),
            unit=unit,
            encoding=self._encoding,
            adjusted=any(not math.isclose(p.score, float(self._own[p.trial]), abs_tol=1e-9) for p in points),
            head_parameters=int(self.trials["head_parameters"].max()) if len(self.trials) else 0,
            baselines=_lines(verdict, unit.merit),
        )

    def _standing(self, named: Collection[int | None], compared: Collection[int]) -> set[int]:
        """The trial that stands for each adapter: one that the verdict speaks of, else the one that came furthest."""
        found: dict[Hashable, tuple[tuple[bool, bool, tuple[float, ...]], int]] = {}
        for adapter, trial, furthest in self._progress:
            claim = (trial in named, trial in compared, furthest), trial
            found[adapter] = max(found.get(adapter, claim), claim)
        return {trial for _, trial in found.values()}

    def _point(
        self,
        row: Mapping[Hashable, Any],
        paired: Mapping[int | None, float],
        differences: Mapping[int, Mapping[str, Any]],
        best_score: float,
    ) -> Point:
        trial = int(row["trial"])
        ends = gain_interval(differences.get(trial, {})) or (math.nan, math.nan)
        low, high = (
            possible(best_score + end, self.metric) if math.isfinite(best_score + end) else None for end in ends
        )
        return Point(
            trial=trial,
            rank=int(row["rank"]),
            targets=str(row["targets"]),
            layers=str(row["layers"]),
            alpha=float(row["alpha"]) if trial in self._twins else None,
            variants=tuple(name for name in _variants(row) if name not in self._shared_variants),
            learning_rate=float(row["learning_rate"]),
            adapter_parameters=int(row["adapter_parameters"]),
            score=possible(paired.get(trial, float(row["score_mean"])), self.metric),
            low=low,
            high=high,
            finished=row["state"] == "complete",
            compute_seconds=float(self._per_cell["seconds"].get(trial, math.nan)),
            wall_seconds=float(self._per_cell["wall_share"].get(trial, math.nan)),
        )


def _variants(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    return variants_of({str(name): value for name, value in row.items()})


def possible(merit: float, metric: str) -> float:
    """The nearest to a reckoned merit that the metric can be."""
    if metric not in METRICS:
        return merit
    worst, most = sorted(direction(metric) * end for end in METRICS[metric].bounds)
    return min(max(merit, worst), most)


def baseline_title(item: Mapping[str, Any]) -> str:
    """What a baseline is called, as the verdict has it; an older one has only its name."""
    return str(item.get("title") or TITLES.get(item["name"], item["name"]))


def _lines(verdict: Mapping[str, Any], merit: Callable[[float], float]) -> tuple[Line, ...]:
    """Every baseline that the verdict has a score of."""
    compared = (verdict.get("baselines") or {}).get("compared") or ()
    lines = [
        Line(baseline_title(item), merit(item["score_mean"])) for item in compared if item["score_mean"] is not None
    ]
    return tuple(sorted(lines, key=lambda line: line.score))


def _progress(trials: pd.DataFrame) -> list[tuple[Hashable, int, tuple[float, ...]]]:
    """Of each trial its adapter, its number, and how far it came: the further, the larger."""
    adapters = trials[list(ADAPTER_FIELDS)].itertuples(index=False, name=None)
    complete, scores = trials["state"] == "complete", trials["score_mean"].fillna(-math.inf)
    furthest = zip(complete, trials["cells"], scores, -trials["trial"], strict=True)
    return list(zip(adapters, trials["trial"].astype(int), furthest, strict=True))


def _twins(trials: pd.DataFrame) -> set[int]:
    """Trials of adapters that differ from another in alpha alone."""
    others = [name for name in ADAPTER_FIELDS if name != "alpha"]
    alphas = trials.groupby(others)["alpha"].transform("nunique")
    return {int(trial) for trial in trials.loc[alphas > 1, "trial"]}


def _named(verdict: Mapping[str, Any], role: str, trials: Collection[Hashable]) -> int | None:
    entry = verdict.get(role)
    if entry is None:
        return None
    trial = int(entry["trial"])
    if trial not in trials:
        raise StudyError.about("verdict.json", f"{role}.trial must be a trial of the study", got=trial)
    return trial


def _paired_scores(complete: pd.DataFrame, best: int | None, best_score: float) -> dict[int | None, float]:
    """``best_score - mean(score(best, j) - score(trial, j))`` over the cells j a trial shares with the best."""
    if best is None:
        return {}
    table = complete.pivot_table(index=["repeat", "fold"], columns="trial", values="score")
    if best not in table:
        return {}
    differences = table.rsub(table[best], axis=0).mean()
    return {int(str(trial)): best_score - float(value) for trial, value in differences.items() if not math.isnan(value)}


def gain_interval(comparison: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of a comparison (how much worse than the best) as how much better; None where it is not known."""
    interval = comparison.get("interval")
    if interval is None or any(end is None or not math.isfinite(end) for end in interval):
        return None
    return -float(interval[1]), -float(interval[0])
