"""Template, palette, words and scripts, put together for a file or for a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from shlex import join, quote
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lora_search.metrics import loss_beside
from lora_search.plots.encoding import css_variables
from lora_search.plots.facts import environment_groups, study_facts
from lora_search.plots.formats import duration, level, unit_of
from lora_search.store.files import EXPERIMENT_FILE, results_of
from lora_search.store.reader import StudyTables

_SCRIPTS = (
    "text", "dom", "scales", "model", "brush", "plane", "figures", "races", "maps", "table", "controls", "predictions",
    "live", "studies", "main",
)  # fmt: skip


@cache
def environment() -> Environment:
    """Every text is escaped, a missing one is an error."""
    made = Environment(
        loader=PackageLoader("lora_search.plots.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"level": level, "duration": duration}
    return made


def render_page(name: str, /, **context: Any) -> str:
    """A whole page: ``study``, ``studies`` or ``compare``."""
    return environment().get_template(f"{name}.html").render(**context)


def study_context(tables: StudyTables, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of a study says of it that no margin changes."""
    return {
        "experiment": tables.experiment,
        "verdict": verdict,
        "unit": unit_of(str(verdict.get("metric") or "score"), float(verdict.get("margin") or 0.0)),
        "loss": loss_beside(tables.experiment.verdict.metric).title,
        "facts": study_facts(tables, verdict),
        "groups": environment_groups(tables),
        "folder": quote(str(tables.folder)),
        "run": run_command(tables.folder, tables.experiment.name),
    }


def run_command(folder: Path, name: str) -> str | None:
    """The command that goes on with a study; None where none does, since its folder is called otherwise."""
    results = results_of(folder, name)
    if results is None:
        return None
    where = [] if results == Path("results") else ["--results", str(results)]
    return join(["lora-search", "run", str(folder / EXPERIMENT_FILE), *where])


def render_part(name: str, context: Mapping[str, Any]) -> str:
    """A piece of a study's page, every text in it escaped."""
    return environment().get_template(f"parts/{name}.html").render(**context).strip()


@cache
def page_script() -> str:
    """All scripts as one, in a scope of their own."""
    folder = files("lora_search.plots.web") / "script"
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


@cache
def page_style() -> str:
    """The palette, light and dark, and what is made of it."""
    light = " ".join(f"--{name}: {colour};" for name, colour in css_variables(dark=False))
    dark = " ".join(f"--{name}: {colour};" for name, colour in css_variables(dark=True))
    folder = files("lora_search.plots.web") / "style"
    rules = "\n".join((folder / f"{name}.css").read_text(encoding="utf-8") for name in ("page", "figures", "print"))
    return (
        f":root {{ {light} --paper: #fffffb; }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{rules}"
    )


def inline_json(value: Any) -> Markup:
    """JSON for a ``<script type="application/json">``, in which nothing can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
