"""A study as the JSON its page draws: trials by column, scores by fold, packs over time, and how it is judged.

Plain values only, rounded to what can be seen, so that two thousand trials of ten cells are about a megabyte.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from lora_search.metrics import has_own_unit
from lora_search.plots.captions import importance_caption
from lora_search.plots.encoding import Encoding
from lora_search.plots.formats import unit_of
from lora_search.plots.importance import ImportanceData
from lora_search.plots.rates import RatesData
from lora_search.plots.web.judged import rounded
from lora_search.spec import ADAPTER_FIELDS
from lora_search.store.reader import StudyTables
from lora_search.store.spreadsheets import csv_text

_TRIAL_COLUMNS = (
    "trial", "state", "origin", *ADAPTER_FIELDS, "learning_rate", "dropout", "adapter_parameters", "head_parameters",
    "cells", "score_mean", "score_std", "seconds", "wall_seconds", "failure",
)  # fmt: skip
MOST_JUDGED_LIVE = 3_000
"""Complete trials up to which a page lets a study be judged anew: all are compared with all, which at this many takes
seconds and gigabytes."""
_MARGINS = (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1)
_USUAL = 0.02
"""Where no margin is usual, that of the experiment takes the place of this one."""
_CONFIDENCES = (0.8, 0.9, 0.95, 0.975, 0.99)


def study_payload(tables: StudyTables, judged: Mapping[str, Any], token: str = "") -> dict[str, Any]:
    """What the page of a study draws.

    Args:
        tables: the study.
        judged: its ``judged_view``.
        token: names the state of the study that was read; a page that has it need not draw again.

    Returns:
        JSON types only. ``trials`` and what ``judged`` holds are columns, one value per trial in the order of the
        frame; ``scores[i][j]`` is the score of trial i on ``columns[j]``, a (repeat, fold). Scores are merits: of a
        loss the sign is turned round (see ``formats.Unit``), but in ``csv``, which is the file.
    """
    experiment, trials, cells = tables.experiment, tables.trials, tables.cells
    complete = cells[cells["state"] == "complete"]
    columns = sorted({(int(r), int(f)) for r, f in zip(complete["repeat"], complete["fold"], strict=True)})
    unit = unit_of(experiment.verdict.metric, experiment.verdict.margin)
    merits = trials.assign(score_mean=trials["score_mean"].map(unit.merit))
    complete = complete.assign(score=complete["score"].map(unit.merit))
    encoding = Encoding.of(trials)
    asked = experiment.verdict
    few = int((trials["state"] == "complete").sum()) <= MOST_JUDGED_LIVE
    return {
        "study": experiment.name,
        "token": token,
        "metric": unit.to_json(),
        "asked": {"margin": asked.margin, "confidence": asked.confidence},
        "stops": {
            "margins": sorted({*(_margins(asked.metric, asked.margin) if few else ()), asked.margin}),
            "confidences": sorted({*(_CONFIDENCES if few else ()), asked.confidence}),
        },
        "unfinished": bool((trials["state"] == "running").any()) or len(trials) < tables.trials_wanted,
        "folds": experiment.cv.folds,
        "repeats": experiment.cv.repeats,
        "columns": columns,
        "encoding": {
            "targets": {name: index for index, name in enumerate(encoding.colours)},
            "layers": dict(encoding.markers),
        },
        "trials": _trials(merits, complete),
        "scores": _scores(trials, complete, columns),
        "packs": _packs(trials, complete, columns),
        "csv": csv_lines(trials),
        "command": f"lora-search export {quote(str(tables.folder))} my-adapter --trial {{trial}} --weights",
        "importance": None,
        "rates": None,
        "predictions": None,
        "links": None,
        "grid": None,
        "judged": judged,
    }


def importance_view(found: ImportanceData) -> dict[str, Any]:
    """What the importance figure draws, and its caption."""
    return {
        "bars": [
            {"name": bar.name, "median": rounded(bar.median), "low": rounded(bar.low), "high": rounded(bar.high)}
            for bar in found.bars
        ],
        "problem": found.problem,
        "title": f"prediction error added by shuffling, in {found.scene.unit.measure}",
        "caption": importance_caption(found),
    }


def rates_view(found: RatesData) -> list[dict[str, Any]]:
    """What is expected of the best adapter of each rank at other learning rates."""
    return [
        {
            "rank": curve.rank,
            "rates": [rounded(rate) for rate in curve.rates],
            "scores": [rounded(score) for score in curve.scores],
            "optimum": [rounded(end) for end in curve.optimum],
        }
        for curve in found.curves
    ]


def csv_lines(trials: pd.DataFrame) -> list[str]:
    """``trials.csv`` line by line, the heading first; joined they are the file. A line may hold quoted line breaks."""
    lines: list[str] = []
    for piece in io.StringIO(csv_text(trials), newline="\n"):
        if lines and lines[-1].count('"') % 2:
            lines[-1] += piece
        else:
            lines.append(piece)
    return lines


def _trials(trials: pd.DataFrame, complete: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns of the frame, which adapter each trial sets, and the seconds of one of its trainings."""
    shares = complete.assign(share=complete["wall_seconds"] / complete["pack_cells"])
    mean = shares.groupby("trial")[["seconds", "share"]].mean().reindex(trials["trial"])
    found = {name: [_value(value) for value in trials[name].tolist()] for name in _TRIAL_COLUMNS}
    keys = list(zip(*(trials[name] for name in ADAPTER_FIELDS), strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return found | {
        "adapter": [numbers[key] for key in keys],
        "compute": [_value(value) for value in mean["seconds"].tolist()],
        "wall": [_value(value) for value in mean["share"].tolist()],
    }


def _scores(
    trials: pd.DataFrame, complete: pd.DataFrame, columns: Sequence[tuple[int, int]]
) -> list[list[float | None]]:
    """Trials x columns; None where a trial was not trained."""
    place = {column: at for at, column in enumerate(columns)}
    row = {int(trial): at for at, trial in enumerate(trials["trial"])}
    table = np.full((len(trials), len(columns)), math.nan)
    at = [row[int(trial)] for trial in complete["trial"]]
    across = [place[int(r), int(f)] for r, f in zip(complete["repeat"], complete["fold"], strict=True)]
    table[at, across] = complete["score"].to_numpy(dtype=float)
    return [[_value(value) for value in line] for line in table.tolist()]


def _packs(trials: pd.DataFrame, complete: pd.DataFrame, columns: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Every pack: begin and end in seconds since the first began, and its cells as (row of the trial, column)."""
    if complete.empty:
        return []
    row = {int(trial): at for at, trial in enumerate(trials["trial"])}
    place = {column: at for at, column in enumerate(columns)}
    cells: dict[int, list[tuple[int, int]]] = {}
    for pack, trial, repeat, fold in zip(
        complete["pack"], complete["trial"], complete["repeat"], complete["fold"], strict=True
    ):
        cells.setdefault(int(pack), []).append((row[int(trial)], place[int(repeat), int(fold)]))
    ends = complete["finished_at"].astype("datetime64[ms, UTC]").astype("int64") / 1000
    times = complete.assign(end=ends).groupby("pack").agg(end=("end", "min"), wall=("wall_seconds", "max"))
    begin = float((times["end"] - times["wall"]).min())
    packs: list[dict[str, Any]] = [
        {
            "pack": int(pack),
            "start": round(float(end - wall) - begin, 2),
            "end": round(float(end) - begin, 2),
            "cells": cells[int(pack)],
        }
        for pack, end, wall in times.itertuples(name=None)
    ]
    packs.sort(key=lambda pack: pack["start"])
    for before, after in pairwise(packs):  # a second is the resolution of the record
        after["start"] = max(after["start"], min(before["end"], after["end"]))
    return packs


def _margins(metric: str, asked: float) -> tuple[float, ...]:
    """What the slider offers: round points, or parts and multiples of what was asked in the unit of the label."""
    if not has_own_unit(metric):
        return _MARGINS
    return tuple(rounded(asked * margin / _USUAL) for margin in _MARGINS)


def _value(value: Any) -> Any:
    """A cell of a frame as JSON has it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or value is pd.NaT:
        return None
    return rounded(value) if isinstance(value, float) else value
