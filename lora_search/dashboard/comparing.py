"""Several studies side by side: the same axes for all, and paired differences where they share their folds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lora_search.dashboard.shelf import Snapshot
from lora_search.metrics import direction
from lora_search.plots.formats import unit_of
from lora_search.plots.landscape import landscape
from lora_search.statistics import correlated_t
from lora_search.store.reader import StudyTables

_LEVEL = 0.95


def comparison_payload(studies: Mapping[str, Snapshot]) -> dict[str, Any]:
    """What the page of a comparison draws.

    Args:
        studies: by name, in the order they are shown.

    Returns:
        JSON types: for each study its sentence, metric and points (trial, adapter parameters, score, interval, who it
        is), and for each pair that shares folds and metric the mean difference of what they recommend.
    """
    shown = [_study(name, snapshot) for name, snapshot in studies.items()]
    pairs = [
        found
        for (one, first), (other, second) in combinations(studies.items(), 2)
        if (found := _pair(one, first, other, second)) is not None
    ]
    return {"studies": shown, "pairs": pairs}


def _study(name: str, snapshot: Snapshot) -> dict[str, Any]:
    tables, verdict = snapshot.tables, snapshot.verdict()
    scene = landscape(tables.trials, tables.cells, verdict)
    unit = scene.unit
    return {
        "name": name,
        "sentence": verdict["sentence"],
        "status": verdict["status"],
        "margin": scene.margin,
        "confidence": scene.confidence,
        "base": tables.experiment.model.base,
        "data": tables.experiment.data.train,
        "seconds": round(float(tables.cells["seconds"].sum()), 1),
        "cells": len(tables.cells),
        "metric": unit.to_json(),
        "points": [
            {
                "trial": point.trial,
                "rank": point.rank,
                "targets": point.targets,
                "layers": point.layers,
                "parameters": point.adapter_parameters,
                "score": point.score,
                "low": point.low,
                "high": point.high,
                "finished": point.finished,
                "recommended": point.trial == scene.recommended,
                "best": point.trial == scene.best,
            }
            for point in scene.points
        ],
    }


def _pair(one: str, first: Snapshot, other: str, second: Snapshot) -> dict[str, Any] | None:
    """The recommended of two studies on shared folds; None where there are none or they measure different things."""
    metric = first.tables.experiment.verdict.metric
    if metric != second.tables.experiment.verdict.metric or not _same_folds(first.tables, second.tables):
        return None
    mine, theirs = (_scores(snapshot) for snapshot in (first, second))
    if mine is None or theirs is None:
        return None
    gaps = direction(metric) * (mine - theirs).dropna().to_numpy(dtype=float)
    if len(gaps) < 2:
        return None
    low, high = (float(end) for end in correlated_t(gaps, first.tables.experiment.cv.folds).interval(_LEVEL))
    unit = unit_of(metric)
    ends = unit.differences(low, high) if math.isfinite(low + high) else ""
    return {
        "one": one,
        "other": other,
        "folds": len(gaps),
        "difference": unit.difference(float(np.mean(gaps))),
        "interval": ends,
        "measure": unit.measure,
    }


def _same_folds(one: StudyTables, other: StudyTables) -> bool:
    """Whether both cut the same data the same way, by the fingerprints each recorded."""
    folds = [(tables.environment.get("data") or {}).get("folds") for tables in (one, other)]
    return bool(folds[0]) and folds[0] == folds[1]


def _scores(snapshot: Snapshot) -> pd.Series | None:
    """Scores of the recommended trial by (repeat, fold)."""
    recommended = snapshot.verdict().get("recommended")
    if recommended is None:
        return None
    cells = snapshot.tables.cells
    mine = cells[(cells["trial"] == recommended["trial"]) & (cells["state"] == "complete")]
    scores: pd.Series = mine.set_index(["repeat", "fold"])["score"]
    return scores
