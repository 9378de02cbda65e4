"""One study as one HTML file: everything inline, nothing fetched, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lora_search.errors import StudyError
from lora_search.plots.captions import captions
from lora_search.plots.facts import verdict_of
from lora_search.plots.figures import PlotData, draw_all, plot_data
from lora_search.plots.rows import comparison_rows, trial_rows
from lora_search.plots.svg import inline_svg, svg_text
from lora_search.plots.web import (
    importance_view,
    inline_json,
    judged_view,
    page_script,
    page_style,
    rates_view,
    render_page,
    study_context,
    study_payload,
)
from lora_search.reporting.keeping import judgement_grid, kept_predictions
from lora_search.store.files import write_atomically
from lora_search.store.reader import StudyTables, read_study

_PIXELS_PER_INCH = 160
_MOST_PLAIN_ROWS = 400


def write_report(study: StudyTables | str | Path, *, texts: Sequence[str] | None = None) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html`` into a study folder.

    Before the first ``verdict.json`` (a study that is still running) the verdict is computed from what is there.

    Args:
        study: its tables, or its folder ``results/<name>``; what is recorded there now is reported.
        texts: of every example, as predictions number them (see ``StudyTables.examples``), to be read in the page where
            adapters disagree; without, it names examples by number.

    Returns:
        the path of ``report.html``.

    Raises:
        StudyError: no study there, or a damaged one, or its folder cannot be written to; or there are more texts than
            examples, or fewer.
    """
    tables = read_study(study.folder if isinstance(study, StudyTables) else study)
    verdict = verdict_of(tables)
    data = plot_data(tables, verdict)
    wide = draw_all(data, "wide")
    page = render_report(tables, verdict, data, wide, texts)
    path = tables.folder / "report.html"
    try:
        save_figures(wide, tables.folder / "figures")
        write_atomically(path, page)
    except OSError as error:
        where = error.filename or tables.folder
        raise StudyError.about(where, "must be a place that can be written to", got=error.strerror) from error
    return path


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write every figure as ``NAME.png`` and ``NAME.svg``, each whole; the folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
        write_atomically(png, drawn.getvalue())
        write_atomically(svg, svg_text(figure))
        paths += [png, svg]
    return paths


def render_report(
    tables: StudyTables,
    verdict: Mapping[str, Any],
    data: PlotData | None = None,
    wide: Mapping[str, Figure] | None = None,
    texts: Sequence[str] | None = None,
) -> str:
    """The page as text.

    Args:
        tables: the study.
        verdict: the mapping of ``verdict.json``.
        data, wide: what ``plot_data`` and ``draw_all`` gave, where they are at hand.
        texts: as for ``write_report``.
    """
    data = data or plot_data(tables, verdict)
    judged = judged_view(tables, verdict)
    payload = study_payload(tables, judged)
    importance = importance_view(data.importance)
    payload |= {
        "importance": importance,
        "rates": rates_view(data.rates),
        "predictions": kept_predictions(tables, judged, texts),
        "grid": judgement_grid(tables, payload["stops"], judged),
    }
    if payload["grid"] is None:
        payload["stops"] = {"margins": [judged["margin"]], "confidences": [judged["confidence"]]}
    return render_page(
        "study",
        **study_context(tables, verdict),
        inline=True,
        html=judged["html"],
        importance_caption=importance["caption"],
        fallback=_plain(tables, verdict, data, wide),
        style=page_style(),
        script=page_script(),
        data=inline_json(payload),
        control=None,
    )


def _plain(tables: StudyTables, verdict: Mapping[str, Any], data: PlotData, wide: Mapping[str, Figure] | None) -> str:
    """What a reader without scripts sees: the figures drawn beforehand, and the tables where they are not too long."""
    scene = data.parameters.scene
    columns, rows = trial_rows(tables.trials, scene)
    short = len(rows) <= _MOST_PLAIN_ROWS
    environment = Environment(
        loader=PackageLoader("lora_search.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("plain.html").render(
        verdict=verdict,
        unit=scene.unit,
        comparisons=comparison_rows(tables.trials, scene, verdict) if short else [],
        columns=columns,
        trials=rows if short else [],
        figures=_plates(data, wide or draw_all(data, "wide")),
    )


def _plates(data: PlotData, wide: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Name, title, caption and drawing of every figure."""
    return [
        {
            "name": name,
            "title": caption.title,
            "text": caption.text,
            "drawn": caption.drawn,
            "wide": Markup(inline_svg(wide[name], f"{name}-wide", caption.title)),
        }
        for name, caption in captions(data).items()
    ]
