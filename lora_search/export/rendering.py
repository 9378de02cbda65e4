"""Templates to text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~&!])")
_BARE_EXPONENT = re.compile(r"^(-?\d+)(e[-+]?\d+)$")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this package with its values filled in; a value it lacks is an error."""
    environment = Environment(
        loader=PackageLoader("lora_search.export"),
        autoescape=False,  # Markdown, YAML and Python, not HTML; what the user wrote goes through the filters
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "python": repr,
        "yaml": yaml_value,
        "cell": table_cell,
        "code": code_span,
        "markdown": markdown_text,
    }
    return environment.get_template(template).render(values)


def yaml_value(value: Any) -> str:
    """A value on one line of YAML. JSON is YAML, but for 1e-05: YAML 1.1 takes that for text."""
    text = json.dumps(value, ensure_ascii=False)
    match = _BARE_EXPONENT.match(text)
    return f"{match[1]}.0{match[2]}" if match else text


def table_cell(value: Any) -> str:
    """A value inside a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown_text(value: Any) -> str:
    """A text on one line of Markdown, shown as it is written: no emphasis, no link, no HTML."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def code_span(value: Any) -> str:
    """A text as code on one line of Markdown, whatever backticks it holds."""
    text = " ".join(str(value).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
