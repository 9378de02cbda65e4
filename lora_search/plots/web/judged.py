"""How a study is judged at one margin and confidence, as the page shows it: columns over its trials, and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_search.plots.captions import page_captions
from lora_search.plots.facts import study_facts, summary_notes
from lora_search.plots.landscape import Landscape, Terrain, possible
from lora_search.plots.marks import roles
from lora_search.plots.rows import baseline_rows, summary_rows
from lora_search.plots.web.render import render_part
from lora_search.spec import facts
from lora_search.spec.baselines import BASE, TITLES
from lora_search.store.reader import StudyTables

_PARTS = ("verdict", "facts", "summary", "beside", "warnings")


@dataclass(frozen=True)
class _Place:
    """What is known of one trial beside the best."""

    score: float | None = None
    low: float | None = None
    high: float | None = None


def judged_view(tables: StudyTables, verdict: Mapping[str, Any], terrain: Terrain | None = None) -> dict[str, Any]:
    """One judgement for the page.

    Args:
        tables: the study.
        verdict: the mapping of ``verdict.json``, for any margin and confidence.
        terrain: of the study, where several judgements share it.

    Returns:
        JSON types: ``score``, ``low``, ``high``, ``difference`` (score minus the best's), ``probability`` and
        ``status`` by trial in the order of the frame, ``roles`` by trial number, ``html`` of the sentences (escaped),
        ``captions`` of the figures, and ``baselines``: what is no adapter and is compared with them, by name and score.
    """
    terrain = terrain or Terrain(tables.trials, tables.cells, verdict.get("metric"))
    scene = terrain.landscape(verdict)
    everyone = (*scene.points, *scene.others)
    places = {point.trial: _Place(_known(point.score), _known(point.low), _known(point.high)) for point in everyone}
    compared = {int(item["trial"]): item for item in verdict.get("comparisons") or ()}
    numbers = [int(trial) for trial in tables.trials["trial"]]
    found = [places.get(trial, _Place()) for trial in numbers]
    best = scene.best_score
    parts = {
        "verdict": verdict,
        "unit": scene.unit,
        "facts": study_facts(tables, verdict),
        "summary": summary_rows(tables.trials, scene, verdict),
        "notes": summary_notes(tables, verdict, scene.unit),
        "baselines": baseline_rows(scene, verdict),
    }
    return {
        "margin": scene.margin,
        "confidence": scene.confidence,
        "decided": scene.decided,
        "best": scene.best,
        "recommended": scene.recommended,
        "roles": {str(trial): names for trial, names in roles(scene).items()},
        "score": [place.score for place in found],
        "low": [place.low for place in found],
        "high": [place.high for place in found],
        "difference": [None if place.score is None or best is None else _known(place.score - best) for place in found],
        "probability": [_known(compared.get(trial, {}).get("probability_not_worse")) for trial in numbers],
        "status": [compared.get(trial, {}).get("status") for trial in numbers],
        "html": {name: render_part(name, parts) for name in _PARTS},
        "captions": page_captions(scene),
        "baselines": _baselines(tables, scene),
    }


def _baselines(tables: StudyTables, scene: Landscape) -> list[dict[str, Any]]:
    """What is no adapter, by name and score; in a study of before there were baselines, the head trained alone, placed
    by its difference to the best on the folds both were trained on."""
    if scene.baselines:
        cells_each = tables.experiment.cv.folds
        return [{"name": line.name, "score": _known(line.score), "cells": cells_each} for line in scene.baselines]
    alone = facts.HEAD_ALONE.of(tables.facts) or ()
    metric, cells = tables.experiment.verdict.metric, tables.cells
    best = cells[(cells["trial"] == scene.best) & (cells["state"] == "complete")]
    scores = {(int(r), int(f)): s for r, f, s in zip(best["repeat"], best["fold"], best["score"], strict=True)}
    gaps = [
        scene.unit.merit(float(cell.scores[metric]) - float(scores[cell.repeat, cell.fold]))
        for cell in alone
        if cell.failure is None and (cell.repeat, cell.fold) in scores
    ]
    if not gaps or scene.best_score is None:
        return []
    return [
        {
            "name": TITLES["head" if scene.head_parameters else BASE],
            "score": _known(possible(scene.best_score + sum(gaps) / len(gaps), metric)),
            "cells": len(gaps),
        }
    ]


def _known(value: Any) -> float | None:
    """A finite number, rounded; None for any other."""
    return None if value is None or not math.isfinite(value) else rounded(value)


def rounded(value: float) -> float:
    """Nine figures: more than a screen shows, of labels in the millions too."""
    return float(f"{value:.9g}")
