"""A figure as SVG: a file of its own, or a part of an HTML page that follows the page's colours and fonts."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.figure import Figure

from lora_search.plots.encoding import LIGHT_AND_DARK


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document with real text; the same figure always gives the same bytes."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lora-search"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element for a page.

    Colours become CSS variables (``var(--ink, #1d2026)``), identifiers get a prefix so that several figures live on one
    page, size is left to the page.

    Args:
        figure: drawn in the colours of ``encoding``.
        name: prefix of its identifiers.
        label: what the figure is, for those who cannot see it.
    """
    text = svg_text(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    if view_box is None:
        raise ValueError(f"an SVG element must have a viewBox, got {head!r}")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    for variable, (light, _) in LIGHT_AND_DARK.items():
        body = body.replace(light, f"var(--{variable}, {light})")
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view_box[0]} role="img" aria-label="{_attribute(label)}">{body}'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
