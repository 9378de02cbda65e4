"""The page of a study, in its two homes: ``report.html``, which holds its data, and the dashboard, which sends it.

``payload`` is what the page draws, as plain JSON; ``judged`` the part of it that depends on margin and confidence;
``render`` puts template, palette, words and scripts together. The scripts draw SVG themselves, 1,900 lines and
108 kB: a charting library in a package (plotly 4.5 MB, bokeh 1 MB) would take longer to parse than the page may take
to appear, styles its marks with inline CSS that a strict policy forbids, and knows neither intervals over a margin band
nor one selection over ten figures.
"""

from lora_search.plots.web.judged import judged_view
from lora_search.plots.web.payload import importance_view, rates_view, study_payload
from lora_search.plots.web.render import inline_json, page_script, page_style, render_page, study_context

__all__ = [
    "importance_view",
    "inline_json",
    "judged_view",
    "page_script",
    "page_style",
    "rates_view",
    "render_page",
    "study_context",
    "study_payload",
]
