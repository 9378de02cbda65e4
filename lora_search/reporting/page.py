"""One study as one HTML file: everything inline, nothing fetched, readable on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lora_search.errors import StudyError
from lora_search.reporting.captions import captions
from lora_search.reporting.encoding import css_variables
from lora_search.reporting.figures import PlotData, draw_all, plot_data
from lora_search.reporting.formats import Unit, duration, level
from lora_search.reporting.rows import comparison_rows, listing, summary_rows, trial_rows
from lora_search.reporting.svg import inline_svg, svg_text
from lora_search.statistics.judging import judge
from lora_search.store.reader import StudyTables, read_study

_PIXELS_PER_INCH = 160


def write_report(study_folder: str | Path) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html`` into a study folder.

    Before the first ``verdict.json`` (a study that is still running) the verdict is computed from what is there.

    Args:
        study_folder: ``results/<name>``.

    Returns:
        the path of ``report.html``.

    Raises:
        StudyError: no study there, or a damaged one, or its folder cannot be written to.
    """
    tables = read_study(study_folder)
    verdict = verdict_of(tables)
    data = plot_data(tables, verdict)
    wide = draw_all(data, "wide")
    page = render_report(tables, verdict, data, wide)
    path = tables.folder / "report.html"
    try:
        save_figures(wide, tables.folder / "figures")
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        where = error.filename or tables.folder
        raise StudyError.about(where, "must be a place that can be written to", got=error.strerror) from error
    return path


def verdict_of(tables: StudyTables) -> Mapping[str, Any]:
    """The recorded verdict, or, before the first one, what the trials so far say."""
    recorded = tables.verdict()
    if recorded is not None:
        return recorded
    return judge(tables).to_dict()


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write every figure as ``NAME.png`` and ``NAME.svg``; the folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        figure.savefig(png, dpi=_PIXELS_PER_INCH, metadata={"Software": None})
        svg.write_text(svg_text(figure), encoding="utf-8")
        paths += [png, svg]
    return paths


def render_report(
    tables: StudyTables,
    verdict: Mapping[str, Any],
    data: PlotData | None = None,
    wide: Mapping[str, Figure] | None = None,
) -> str:
    """The page as text.

    Args:
        tables: the study.
        verdict: the mapping of ``verdict.json``.
        data, wide: what ``plot_data`` and ``draw_all`` gave, where they are at hand.
    """
    data = data or plot_data(tables, verdict)
    scene = data.parameters.scene
    columns, rows = trial_rows(tables.trials, scene)
    environment = Environment(
        loader=PackageLoader("lora_search.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"level": level, "duration": duration}
    return environment.get_template("report.html").render(
        experiment=tables.experiment,
        verdict=verdict,
        unit=scene.unit,
        light=list(css_variables(dark=False)),
        dark=list(css_variables(dark=True)),
        summary=summary_rows(tables.trials, scene, verdict),
        comparisons=comparison_rows(tables.trials, scene, verdict),
        columns=columns,
        trials=rows,
        notes=_notes(tables, verdict, scene.unit),
        figures=_plates(data, wide or draw_all(data, "wide"), draw_all(data, "narrow")),
        facts=_facts(tables),
        groups=_groups(tables),
    )


def _plates(data: PlotData, wide: Mapping[str, Figure], narrow: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Name, title, caption and both drawings of every figure."""
    return [
        {
            "name": name,
            "title": caption.title,
            "text": caption.text,
            "drawn": caption.drawn,
            "wide": Markup(inline_svg(wide[name], f"{name}-wide", caption.title)),
            "narrow": Markup(inline_svg(narrow[name], f"{name}-narrow", caption.title)),
        }
        for name, caption in captions(data).items()
    ]


def _notes(tables: StudyTables, verdict: Mapping[str, Any], unit: Unit) -> list[str]:
    """How to read the small table, and the two scores that do not flatter the recommended."""
    notes = ["The smaller line under a score is its 95 % interval, under a difference the bounds that decide."]
    if len(tables.trials):
        head = int(tables.trials["head_parameters"].iloc[0])
        notes.append(f"Every trial also trains {head:,} parameters of the task head, counted apart.")
    corrected, interval = verdict.get("corrected_score"), verdict.get("corrected_interval")
    if corrected is not None:
        known = interval is not None and None not in interval
        ends = f" ({unit.interval(*interval)})" if interval is not None and known else ""
        notes.append(f"Corrected for having picked one of many, the recommended scores {unit.score(corrected)}{ends}.")
    if verdict.get("holdout_score") is not None:
        notes.append(f"On the hold-out, which no trial ever saw, it scores {unit.score(verdict['holdout_score'])}.")
    return notes


def _facts(tables: StudyTables) -> dict[str, Any]:
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
        "compute": float(cells["seconds"].sum()),
        "wall": float((cells["wall_seconds"] / cells["pack_cells"]).sum()),
        "packed": bool((cells["pack_cells"] > 1).any()),
        "finished": "" if finished is None else f"{finished:%d %B %Y}".lstrip("0"),
        "examples": None if first is None else int(first["examples"] + first["train_examples"]),
    }


def _groups(tables: StudyTables) -> list[tuple[str, list[tuple[str, str]]]]:
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
