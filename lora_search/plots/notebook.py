"""A study in a notebook: the verdict and its figures as one piece of HTML, without scripts, on
white paper whatever the notebook's own colours."""

from __future__ import annotations

from pathlib import Path

from lora_search.plots.facts import study_facts, summary_notes, verdict_of
from lora_search.plots.figures import scatter
from lora_search.plots.ranks import draw_ranks, ranks_data
from lora_search.plots.rows import summary_rows
from lora_search.plots.svg import inline_svg
from lora_search.plots.tradeoff import draw_tradeoff, parameters_data
from lora_search.plots.web.render import render_part
from lora_search.store.reader import StudyTables, read_study

_STYLE = """<style>
.lora-search-study { background: #fff; color: #1d2026; padding: 1em 1.2em; max-width: 60em; line-height: 1.45; }
.lora-search-study h1 { font-size: 1.45em; font-weight: 600; line-height: 1.3; margin: 0 0 0.5em; }
.lora-search-study h2 { font-size: 1.05em; margin: 1em 0 0.3em; }
.lora-search-study table { border-collapse: collapse; margin: 1em 0; color: inherit; }
.lora-search-study th, .lora-search-study td { text-align: left; font-weight: 400; padding: 0.3em 1.2em 0.3em 0; }
.lora-search-study tr { background: none; border-bottom: 1px solid #d9dce1; vertical-align: baseline; }
.lora-search-study .number { text-align: right; white-space: nowrap; }
.lora-search-study small { display: block; color: #666b74; }
.lora-search-study p, .lora-search-study thead th { color: #666b74; }
</style>"""


class Study(StudyTables):
    """The tables of a study, which a notebook shows as its verdict and figures."""

    def _repr_html_(self) -> str:
        verdict = verdict_of(self)
        frames = (self.trials, self.cells, verdict)
        parameters, ranks = parameters_data(*frames), ranks_data(*frames)
        scene = parameters.scene
        parts = {
            "verdict": verdict,
            "unit": scene.unit,
            "facts": study_facts(self, verdict),
            "summary": summary_rows(self.trials, scene, verdict),
            "notes": summary_notes(self, verdict, scene.unit),
        }
        drawn = {
            "score by parameters": scatter(scene, lambda ax: draw_tradeoff(parameters, ax)),
            "score by rank": scatter(scene, lambda ax: draw_ranks(ranks, ax)),
        }
        prefix = self.experiment.name
        figures = [inline_svg(figure, f"{prefix}-{name.replace(' ', '-')}", name) for name, figure in drawn.items()]
        said = [render_part(name, parts) for name in ("verdict", "facts", "summary", "warnings")]
        wide = [f'<div style="max-width: 48em">{figure}</div>' for figure in figures]
        return "\n".join([_STYLE, '<div class="lora-search-study">', *said, *wide, "</div>"])


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
