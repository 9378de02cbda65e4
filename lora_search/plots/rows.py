"""The tables of the report, as rows of finished text for the template; the template decides only how they look."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lora_search.plots.formats import DASH, NO_BREAK, Unit, adapter, duration, mebibytes, percent
from lora_search.plots.landscape import Landscape, Point, baseline_title
from lora_search.plots.marks import GUESS, roles
from lora_search.spec import variants_of

_WHERE_VARIED = ("scaling", "use_dora", "bias", "rank_pattern", "dropout")
_FINGERPRINT = re.compile(r"[0-9a-f]{32,}")


@dataclass(frozen=True)
class Cell:
    """One table cell.

    Attributes:
        text: what is shown.
        order: what the column sorts by; None sorts last.
        note: a smaller line below.
    """

    text: str
    order: float | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One table row; ``names`` are the roles that make it stand out."""

    trial: int
    names: tuple[str, ...]
    cells: Mapping[str, Cell]
    state: str = "complete"


@dataclass(frozen=True)
class Glyph:
    """A tiny interval plot in units of a common width of 100: the band, the bar and its dot; None where unknown."""

    band: tuple[float, float]
    bar: tuple[float, float] | None
    dot: float


def summary_rows(trials: pd.DataFrame, scene: Landscape, verdict: Mapping[str, Any]) -> list[Row]:
    """The recommended, the best and the guesses, one row each, one row where they coincide."""
    named = roles(scene)
    records = _records(trials[trials["trial"].isin(named.keys()) | (trials["origin"] == "guess")])
    unscored = (trial for trial, record in records.items() if record["origin"] == "guess" and trial not in named)
    named |= dict.fromkeys(unscored, (GUESS,))
    comparisons = _comparisons(verdict)
    summaries = [verdict[role] for role in ("recommended", "best") if verdict.get(role)]
    best = None if scene.best is None else int(records[scene.best]["adapter_parameters"])
    rows = []
    for trial, names in named.items():
        record = records[trial]
        summary: Mapping[str, Any] = next((item for item in summaries if item["trial"] == trial), {})
        comparison = comparisons.get(trial, {})
        is_best = trial == scene.best
        rows.append(
            Row(
                trial,
                names,
                {
                    "adapter": Cell(_adapter(record), note=_nuisance(record)),
                    "parameters": Cell(
                        f"{record['adapter_parameters']:,}",
                        note="" if best is None or is_best else share(int(record["adapter_parameters"]), best),
                    ),
                    "head": Cell(f"{record['head_parameters']:,}"),
                    "score": _score(record, summary, scene),
                    "difference": Cell(DASH) if is_best else _difference(comparison, scene.unit),
                    "probability": Cell(percent(_number(comparison.get("probability_not_worse")))),
                    "time": Cell(_per_training(scene.point(trial))),
                },
                str(record["state"]),
            )
        )
    return rows


def baseline_rows(scene: Landscape, verdict: Mapping[str, Any]) -> list[Row]:
    """The recommended adapter and what is none, from the lowest score to the highest; none before they were trained."""
    found = verdict.get("baselines") or {}
    if not found:
        return []
    compared = [(baseline_title(item), item) for item in found["compared"]]
    named = [*compared, ("LoRA, recommended", found["recommended"])]
    named.sort(key=lambda pair: _order_of(pair[1]["score_mean"], scene))
    return [_baseline(name, item, scene) for name, item in named]


def _order_of(score: float | None, scene: Landscape) -> float:
    """The better the later; what failed comes first."""
    return -math.inf if score is None else scene.unit.merit(score)


def _baseline(name: str, item: Mapping[str, Any], scene: Landscape) -> Row:
    rates, held = item["learning_rates"], item["step_bytes"]
    score = scene.unit.merit(_number(item["score_mean"]))
    low, high = (scene.unit.merit(_number(end)) for end in item["score_interval"] or (None, None))
    failed = f"failed: {item['failure']}" if item["failure"] else ""
    known = scene.unit.interval(low, high) if math.isfinite(low + high) else ""
    difference = Cell(DASH)
    if item["name"] != "lora" and item["difference"] is not None:
        difference = _difference(
            {"difference": -item["difference"], "interval": _turned(item["difference_interval"])}, scene.unit
        )
    return Row(
        -1,
        ("recommended",) if item["name"] == "lora" else (),
        {
            "name": Cell(name, note=f"learning rate {', '.join(f'{rate:.2g}' for rate in rates)}" if rates else ""),
            "parameters": Cell(f"{item['trainable_parameters']:,}" if item["trainable_parameters"] else DASH),
            "score": Cell(scene.unit.score(score), note=failed or known),
            "difference": difference,
            "time": Cell(duration(item["seconds"]) if item["seconds"] else DASH),
            "memory": Cell(DASH if held is None else mebibytes(held)),
        },
    )


def _turned(interval: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The bounds of a difference seen from the other side."""
    low, high = (None if end is None else -end for end in interval)
    return high, low


def comparison_rows(trials: pd.DataFrame, scene: Landscape, verdict: Mapping[str, Any]) -> list[tuple[Row, Glyph]]:
    """Every comparison of the verdict, the fewest adapter parameters first, each with its interval drawn small."""
    records = _records(trials)
    named = roles(scene)
    comparisons = _comparisons(verdict)
    glyphs = _glyphs(comparisons, scene.margin)
    rows = []
    for trial, comparison in comparisons.items():
        record = records[trial]
        chance = _number(comparison.get("probability_not_worse"))
        cells = {
            "trial": Cell(str(trial), trial),
            "adapter": Cell(_adapter(record), note=_nuisance(record)),
            "parameters": Cell(f"{record['adapter_parameters']:,}", int(record["adapter_parameters"])),
            "difference": _difference(comparison, scene.unit),
            "probability": Cell(percent(chance), chance),
            "status": Cell({"not-worse": "not worse"}.get(comparison["status"], comparison["status"])),
            "cells": Cell(str(comparison.get("cells", DASH))),
        }
        rows.append((Row(trial, named.get(trial, ()), cells), glyphs[trial]))
    return sorted(rows, key=lambda row: (row[0].cells["parameters"].order, row[0].trial))


def trial_rows(trials: pd.DataFrame, scene: Landscape) -> tuple[list[tuple[str, str]], list[Row]]:
    """Columns (key, heading) and rows of the trials table; some only where they vary."""
    columns = [
        ("trial", "trial"), ("rank", "rank"), ("alpha", "alpha"), ("targets", "target modules"), ("layers", "layers"),
        ("scaling", "scaling"), ("use_dora", "DoRA"), ("bias", "bias"), ("rank_pattern", "ranks"),
        ("learning_rate", "learning rate"),
        ("dropout", "dropout"),
        ("adapter_parameters", "adapter parameters"), ("score", "score"), ("spread", "± folds"), ("cells", "trainings"),
        ("seconds", "compute"), ("state", "state"),
    ]  # fmt: skip
    columns = [item for item in columns if item[0] not in _WHERE_VARIED or trials[item[0]].nunique() > 1]
    named = roles(scene)
    rows = []
    for record in trials.sort_values("trial").to_dict("records"):
        trial, spread = int(record["trial"]), float(record["score_std"])
        score = scene.unit.merit(float(record["score_mean"]))
        failure = record["failure"]
        origin = "" if record["origin"] == "sampler" else str(record["origin"])
        cells = {
            "trial": Cell(str(trial), trial, origin),
            "score": Cell(scene.unit.number(score), _order(score)),
            "spread": Cell(scene.unit.spread(spread), _order(spread)),
            "seconds": Cell(duration(record["seconds"]), record["seconds"]) if record["cells"] else Cell(DASH),
            "state": Cell(str(record["state"]), str(record["state"]), "" if pd.isna(failure) else str(failure)),
            "adapter_parameters": Cell(f"{record['adapter_parameters']:,}", int(record["adapter_parameters"])),
            "learning_rate": Cell(f"{record['learning_rate']:.2g}", record["learning_rate"]),
            "use_dora": Cell("yes" if record["use_dora"] else "no", int(record["use_dora"])),
        } | {
            key: Cell(f"{record[key]:g}" if isinstance(record[key], int | float) else str(record[key]), record[key])
            for key in ("rank", "alpha", "targets", "layers", "scaling", "bias", "rank_pattern", "dropout", "cells")
        }
        rows.append(Row(trial, named.get(trial, ()), cells, str(record["state"])))
    return columns, rows


def share(parameters: int, of: int) -> str:
    """``1/16 of the best's``, a percentage where no whole fraction is near, a multiple where it is larger."""
    if parameters == of:
        return "as many as the best"
    if parameters > of:
        return f"{parameters / of:.3g} × the best's"
    parts = of / parameters
    if abs(parts - round(parts)) < 0.02 * parts:
        return f"1/{round(parts)} of the best's"
    return f"{100 * parameters / of:.2g}{NO_BREAK}% of the best's"


def listing(value: Any) -> list[tuple[str, str]]:
    """A nested mapping as (key, text) lines: ``{"cpu": {"cores": 2}}`` becomes ``[("cpu cores", "2")]``.

    Fingerprints are cut to what tells them apart; ``environment.json`` has them whole.
    """
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        value = {str(number): item for number, item in enumerate(value, 1)}
    if not isinstance(value, Mapping):
        return [("", _plain(value))]
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = str(key).replace("_", " ")
        lines += [(f"{name} {inner}".strip(), text) for inner, text in listing(item)]
    return lines


def _plain(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return (" " if all(item.endswith(".") for item in items) else ", ").join(items) or DASH
    text = str(value)
    return f"{text[:12]}…" if _FINGERPRINT.fullmatch(text) else text


def _records(trials: pd.DataFrame) -> dict[int, dict[str, Any]]:
    return {
        int(record["trial"]): {str(key): value for key, value in record.items()} for record in trials.to_dict("records")
    }


def _comparisons(verdict: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    return {int(item["trial"]): item for item in verdict.get("comparisons") or ()}


def _adapter(record: Mapping[str, Any]) -> str:
    rank, targets, layers = int(record["rank"]), str(record["targets"]), str(record["layers"])
    return adapter(rank, targets, layers, longest=60, variants=variants_of(record))


def _nuisance(record: Mapping[str, Any]) -> str:
    dropout = f", dropout {record['dropout']:g}" if record["dropout"] else ""
    return f"alpha {record['alpha']:g}, learning rate {record['learning_rate']:.2g}{dropout}"


def _score(record: Mapping[str, Any], summary: Mapping[str, Any], scene: Landscape) -> Cell:
    """Of an adapter that lacks folds the score set right by how hard those it has are, as the figures have it."""
    unit, point = scene.unit, scene.point(int(record["trial"]))
    if point is not None and not point.finished:
        cells = int(record["cells"])
        return Cell(unit.score(point.score), note=f"after {cells} training{'' if cells == 1 else 's'}")
    interval = [math.nan if end is None else unit.merit(end) for end in summary.get("score_interval") or ()]
    known = len(interval) == 2 and all(math.isfinite(end) for end in interval)
    score = unit.merit(float(record["score_mean"]))
    if math.isnan(score):
        return Cell(DASH, note=str(record["state"]))
    return Cell(unit.score(score), note=unit.interval(*interval) if known else "")


def _difference(comparison: Mapping[str, Any], unit: Unit) -> Cell:
    """How much more (+) or less (−) than the best the trial scores."""
    if not comparison:
        return Cell(DASH)
    worse = _number(comparison.get("difference"))
    low, high = (_number(end) for end in comparison.get("interval") or (None, None))
    note = unit.differences(-high, -low) if math.isfinite(low + high) else ""
    return Cell(unit.difference(-worse), -worse, note)


def _glyphs(comparisons: Mapping[int, Mapping[str, Any]], margin: float) -> dict[int, Glyph]:
    """All on one scale that reaches from three margins (or the worst mean) below the best to a margin above it."""
    means = {trial: -_number(item.get("difference")) for trial, item in comparisons.items()}
    ordered = sorted(value for value in means.values() if math.isfinite(value))
    typical = ordered[len(ordered) // 4] if ordered else 0.0
    low, high = min(-3 * margin or -1e-4, 1.5 * typical), 1.5 * margin or 1e-4

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    glyphs = {}
    for trial, item in comparisons.items():
        worst, least = (_number(end) for end in reversed(item.get("interval") or (None, None)))
        bar = (place(-worst), place(-least)) if math.isfinite(worst + least) else None
        glyphs[trial] = Glyph((place(-margin), place(0.0)), bar, place(means[trial]))
    return glyphs


def _per_training(point: Point | None) -> str:
    return DASH if point is None else duration(point.compute_seconds)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _order(value: float) -> float | None:
    return value if math.isfinite(value) else None
