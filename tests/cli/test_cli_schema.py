"""``lora-search schema``: a JSON Schema that takes what the loader takes and refuses what it refuses."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_search.cli import app

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.toml"
TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "enum": lambda value, choices: value in choices,
    "const": lambda value, only: value == only,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
}
APPLIED = {"$ref", "anyOf", "oneOf", "type", "properties", "required", "additionalProperties", "items"}
SAID = {"$schema", "$defs", "title", "description", "default"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    answer = CliRunner().invoke(app, ["schema"])
    assert answer.exit_code == 0
    return json.loads(answer.stdout)


def accepts(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    """JSON Schema (2020-12), as far as ours uses it."""
    assert set(schema) <= {*TYPES, *BOUNDS, *APPLIED, *SAID}, "a keyword this test does not know"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return accepts(whole["$defs"][name], value, whole)
    if "type" in schema:
        kind = TYPES[schema["type"]]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return False
    if not all(rule(value, schema[name]) for name, rule in BOUNDS.items() if name in schema):
        return False
    for keyword, enough in (("anyOf", range(1, 99)), ("oneOf", (1,))):
        if keyword in schema and sum(accepts(choice, value, whole) for choice in schema[keyword]) not in enough:
            return False
    if isinstance(value, list) and "items" in schema:
        return all(accepts(schema["items"], item, whole) for item in value)
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return (
            set(schema.get("required", ())) <= set(value)
            and (set(value) <= set(known) or schema.get("additionalProperties", True))
            and all(accepts(known[key], item, whole) for key, item in value.items() if key in known)
        )
    return True


@pytest.fixture
def quickstart() -> dict[str, Any]:
    return tomllib.loads(QUICKSTART.read_text(encoding="utf-8"))


def test_the_quick_start_is_valid(schema, quickstart):
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert accepts(schema, quickstart, schema)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("search", "rank", 8),
        ("search", "rank", [1, 8]),
        ("search", "layers", "top-2"),
        ("search", "layers", [3, 4, 5]),
        ("search", "layers", ["all", [3, 4]]),
        ("search", "targets", ["attention", ["query", "value"]]),
        ("search", "learning_rate", 1e-3),
        ("search", "learning_rate", "auto"),
        ("data", "drop_labels", "plot"),
        ("data", "label", ["toxic", "insult"]),
        ("verdict", "metric", "macro_f1"),
    ],
)
def test_what_may_be_written(schema, quickstart, table, key, value):
    quickstart[table][key] = value
    assert accepts(schema, quickstart, schema)


def test_an_error_in_the_unit_of_the_label_may_have_any_margin(schema, quickstart):
    quickstart["verdict"] = {"metric": "rmse", "margin": 500}
    assert accepts(schema, quickstart, schema)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("search", "rank", [0]),
        ("search", "rank", "8"),
        ("search", "ranks", [8]),
        ("search", "learning_rate", {"low": 1e-3}),
        ("search", "learning_rate", "fast"),
        ("search", "learning_rate", {"low": 0, "high": 1}),
        ("search", "trials", 0),
        ("cv", "folds", 1),
        ("training", "precision", "fp16"),
        ("verdict", "metric", "f1"),
        ("verdict", "margin", 1),
        ("model", "base", ""),
    ],
)
def test_what_may_not(schema, quickstart, table, key, value):
    quickstart[table][key] = value
    assert not accepts(schema, quickstart, schema)


def test_a_table_may_not_be_missing(schema, quickstart):
    del quickstart["model"]
    assert not accepts(schema, quickstart, schema)
