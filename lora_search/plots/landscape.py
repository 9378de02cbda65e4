"""The adapters of a study as points that may be compared: the one table behind the figures.

A study that looks for learning rates has several trials of one adapter, its settings: one of them stands for it, and
the others are kept apart.

A score averaged over a trial's own cells is not comparable with another's over different cells: an easy fold lifts it.
Each trial is therefore placed at *best score minus mean paired difference*, over the (repeat, fold) cells it shares
with the best. Where all trials have the same cells this is the plain mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lora_search.errors import StudyError
from lora_search.plots.encoding import Encoding
from lora_search.plots.formats import Unit, unit_of
from lora_search.spec import ADAPTER_FIELDS
from lora_search.spec.baselines import TITLES


@dataclass(frozen=True)
class Point:
    """One trial with at least one finished cell.

    Attributes:
        learning_rate: at which it was trained.
        score: paired with the best (module docstring), in raw metric units, more is better: a loss is negative.
        low, high: best score minus the ends of the verdict's interval (how much worse than the best the trial may truly
            be): below the margin band both for a worse trial, above its lower edge both for one that is not worse. None
            where nothing was compared or nothing is known of the noise.
        finished: whether the trial is complete and competes for the verdict.
        compute_seconds: mean over its finished cells of each cell's own share of its pack, by work done.
        wall_seconds: mean over its finished cells of the pack's clock divided evenly among its cells.
    """

    trial: int
    rank: int
    targets: str
    layers: str
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
    """What is no adapter and is compared with them: its name, and its score, paired with the recommended."""

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
    best, recommended = (_named(verdict, role, trials) for role in ("best", "recommended"))
    unit = unit_of(str(verdict.get("metric") or "score"), float(verdict.get("margin") or 0.0))
    trials, cells = (
        frame.assign(**{name: frame[name].map(unit.merit)})
        for frame, name in ((trials, "score_mean"), (cells, "score"))
    )
    own = trials.set_index("trial")["score_mean"]
    complete = cells[cells["state"] == "complete"]
    paired = _paired_scores(complete, best, float(own[best]) if best is not None else math.nan)
    shares = complete.assign(wall_share=complete["wall_seconds"] / complete["pack_cells"])
    per_cell = shares.groupby("trial")[["seconds", "wall_share"]].mean().to_dict()
    differences = {item["trial"]: item for item in verdict.get("comparisons") or ()}

    points = []
    for row in trials[trials["score_mean"].notna()].sort_values("trial").to_dict("records"):
        trial = int(row["trial"])
        low, high = _interval(differences.get(trial), paired.get(best, math.nan))
        points.append(
            Point(
                trial=trial,
                rank=int(row["rank"]),
                targets=str(row["targets"]),
                layers=str(row["layers"]),
                learning_rate=float(row["learning_rate"]),
                adapter_parameters=int(row["adapter_parameters"]),
                score=paired.get(trial, float(row["score_mean"])),
                low=low,
                high=high,
                finished=row["state"] == "complete",
                compute_seconds=float(per_cell["seconds"].get(trial, math.nan)),
                wall_seconds=float(per_cell["wall_share"].get(trial, math.nan)),
            )
        )
    scored = {point.trial for point in points}
    standing = _standing(trials, {best, recommended}, differences)
    return Landscape(
        points=tuple(point for point in points if point.trial in standing),
        others=tuple(point for point in points if point.trial not in standing),
        unscored=tuple(int(trial) for trial in trials["trial"] if trial not in scored),
        best=best,
        recommended=recommended,
        decided=verdict.get("status") == "decided",
        guesses=tuple(int(t) for t in trials.loc[trials["origin"] == "guess", "trial"] if t in scored),
        margin=float(verdict.get("margin") or 0.0),
        confidence=float(verdict.get("confidence") or 0.95),
        unit=unit,
        encoding=Encoding.of(trials),
        adjusted=any(not math.isclose(p.score, float(own[p.trial]), abs_tol=1e-9) for p in points),
        baselines=_lines(verdict, next((point.score for point in points if point.trial == recommended), None)),
    )


def _lines(verdict: Mapping[str, Any], recommended: float | None) -> tuple[Line, ...]:
    """Every baseline of which the verdict knows the difference to the recommended."""
    compared = (verdict.get("baselines") or {}).get("compared") or ()
    lines = [
        Line(TITLES.get(item["name"], item["name"]), recommended + item["difference"])
        for item in compared
        if recommended is not None and item["difference"] is not None
    ]
    return tuple(sorted(lines, key=lambda line: line.score))


def _standing(trials: pd.DataFrame, named: Collection[int | None], compared: Collection[int]) -> set[int]:
    """The trial that stands for each adapter: one that the verdict speaks of, else the one that came furthest."""
    order = trials.assign(
        named=trials["trial"].isin(list(named)),
        compared=trials["trial"].isin(list(compared)),
        finished=trials["state"] == "complete",
    ).sort_values(["named", "compared", "finished", "cells", "score_mean", "trial"], ascending=[False] * 5 + [True])
    return set(order.drop_duplicates(list(ADAPTER_FIELDS))["trial"].astype(int))


def _named(verdict: Mapping[str, Any], role: str, trials: pd.DataFrame) -> int | None:
    entry = verdict.get(role)
    if entry is None:
        return None
    trial = int(entry["trial"])
    if trial not in set(trials["trial"]):
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


def _interval(comparison: Mapping[str, Any] | None, best_score: float) -> tuple[float | None, float | None]:
    """The interval of a difference (best minus trial) turned into scores."""
    interval = comparison.get("interval") if comparison else None
    if interval is None or any(end is None or not math.isfinite(end) for end in interval) or math.isnan(best_score):
        return None, None
    return best_score - float(interval[1]), best_score - float(interval[0])
