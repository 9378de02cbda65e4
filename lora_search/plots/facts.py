"""What a page says of a study beside its figures: counts and times, notes on the small table, the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_search.plots.formats import Unit
from lora_search.plots.rows import listing
from lora_search.statistics.judging import judge
from lora_search.store.reader import StudyTables


def verdict_of(tables: StudyTables) -> Mapping[str, Any]:
    """The recorded verdict, or, before the first one, what the trials so far say."""
    return tables.verdict() or judge(tables).to_dict()


def study_facts(tables: StudyTables, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and times of the whole study, for the line below the headline and for the method."""
    trials, cells = tables.trials, tables.cells
    complete = cells[cells["state"] == "complete"]
    states = trials["state"].value_counts()
    finished = cells["finished_at"].max() if len(cells) else None
    first = complete.iloc[0] if len(complete) else None
    return {
        "trials": len(trials),
        "states": {str(state): int(number) for state, number in states.items() if state != "complete"},
        "cells": len(complete),
        "skipped": int(verdict.get("cells_skipped_by_racing") or 0),
        "compute": float(cells["seconds"].sum()),
        "wall": float((cells["wall_seconds"] / cells["pack_cells"]).sum()),
        "head_parameters": int(trials["head_parameters"].max()) if len(trials) else None,
        "packed": bool((cells["pack_cells"] > 1).any()),
        "finished": "" if finished is None else f"{finished:%d %B %Y}".lstrip("0"),
        "examples": None if first is None else int(first["examples"] + first["train_examples"]),
    }


def summary_notes(tables: StudyTables, verdict: Mapping[str, Any], unit: Unit) -> list[str]:
    """How to read the small table, and the two scores that do not flatter the recommended."""
    notes = ["The smaller line under a score is its 95 % interval, under a difference the bounds that decide."]
    if len(tables.trials):
        head = int(tables.trials["head_parameters"].iloc[0])
        if head:
            notes.append(f"Every trial also trains {head:,} parameters of the task head, counted apart.")
    corrected, interval = verdict.get("corrected_score"), verdict.get("corrected_interval")
    if corrected is not None:
        known = interval is not None and None not in interval
        ends = f" ({unit.interval(*map(unit.merit, interval))})" if interval is not None and known else ""
        who = "the recommended" if verdict.get("status") == "decided" else "the best guess"
        notes.append(
            f"Corrected for having picked one of many, {who} scores {unit.score(unit.merit(corrected))}{ends}."
        )
    if verdict.get("holdout_score") is not None:
        kept = unit.score(unit.merit(verdict["holdout_score"]))
        notes.append(f"On the hold-out, which no trial ever saw, it scores {kept}.")
    return notes


def environment_groups(tables: StudyTables) -> list[tuple[str, list[tuple[str, str]]]]:
    """The environment, what was measured once, and the experiment as run, in titled lists."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    loose = {}
    for key, value in tables.environment.items():
        if isinstance(value, Mapping | list):
            groups.append((str(key).replace("_", " "), listing(value)))
        else:
            loose[key] = value
    if loose:
        groups.insert(0, ("run", listing(loose)))
    if tables.facts:
        groups.append(("measured once", listing(tables.facts)))
    groups.append(("experiment, with defaults", listing(tables.experiment.model_dump(mode="json"))))
    return groups
