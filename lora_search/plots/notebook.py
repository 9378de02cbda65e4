"""A study in a notebook: the verdict and its figures as one piece of HTML, without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_search.plots.facts import study_facts, summary_notes
from lora_search.plots.figures import draw_all, plot_data
from lora_search.plots.rows import summary_rows
from lora_search.plots.svg import inline_svg
from lora_search.plots.web.render import render_part
from lora_search.statistics.judging import judge
from lora_search.store.reader import StudyTables, read_study

_SHOWN = ("score_by_parameters", "score_by_rank")


class Study(StudyTables):
    """The tables of a study, which a notebook shows as its verdict and figures."""

    def _repr_html_(self) -> str:
        verdict: Mapping[str, Any] = self.verdict() or judge(self).to_dict()
        data = plot_data(self, verdict)
        scene = data.parameters.scene
        parts = {
            "verdict": verdict,
            "unit": scene.unit,
            "facts": study_facts(self, verdict),
            "summary": summary_rows(self.trials, scene, verdict),
            "notes": summary_notes(self, verdict, scene.unit),
        }
        drawn = draw_all(data, "wide")
        figures = [inline_svg(drawn[name], f"{self.experiment.name}-{name}", name.replace("_", " ")) for name in _SHOWN]
        said = [render_part(name, parts) for name in ("verdict", "facts", "summary", "warnings")]
        wide = [f'<div style="max-width: 48em">{figure}</div>' for figure in figures]
        return "\n".join(['<div class="lora-search-study">', *said, *wide, "</div>"])


def open_study(folder: str | Path) -> Study:
    """Open the folder of a study.

    Args:
        folder: ``results/<name>``.

    Returns:
        Its tables as they stand; shown in a notebook, its verdict and figures.

    Raises:
        StudyError: no study there, or a damaged one.
    """
    return Study(**vars(read_study(folder)))
