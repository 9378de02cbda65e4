"""What pydantic found wrong, in the words of the file: one line per mistake, ``key.path: rule, got VALUE``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lora_search.errors import Mistake
from lora_search.spec.experiment import Experiment
from lora_search.spec.fields import UNION_TAGS
from lora_search.spec.quoting import cut
from lora_search.spec.suggestions import ChoiceError, closest, one_of
from lora_search.spec.toml import toml_key, toml_value

KeyPath = tuple[str | int, ...]

_KEY_WIDTH = 60
_TAGGED: KeyPath = ("search", "learning_rate")
_PEFT_NAMES = {
    "r": "rank", "lora_alpha": "alpha_over_rank", "target_modules": "targets", "layers_to_transform": "layers",
    "lora_dropout": "dropout", "use_rslora": "scaling", "alpha_pattern": "rank_pattern",
}  # fmt: skip
_LONG = 1e15  # from which on a bound is easier to read as a power of ten
_TYPES = {
    "bool": "must be true or false",
    "dict": "must be a table",
    "float": "must be a number",
    "int": "must be a whole number",
    "model": "must be a table",
    "string": "must be text",
    "tuple": "must be a list",
}
_BOUNDS = {
    "greater_than": ("must be above {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be below {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "string_too_long": ("must have at most {} characters", "max_length"),
}


def mistakes_of(error: ValidationError, raw: Mapping[str, Any], source_of: Callable[[KeyPath], str]) -> list[Mistake]:
    """Every mistake of one failed validation, in the order of the schema.

    Args:
        error: what pydantic raised.
        raw: the tables that failed, as they were read.
        source_of: where the value of a key path was given.
    """
    details = error.errors(include_url=False)
    unknown = {item["loc"]: _meant_key(_keys(item["loc"])) for item in details if item["type"] == "extra_forbidden"}
    # "[modle]" is one mistake, not an unknown table and a missing one.
    explained = {meant for meant in unknown.values() if meant is not None}
    mistakes: list[tuple[KeyPath, Mistake]] = []
    for item in details:
        path = _written_path(item, raw)
        if item["type"] == "missing":
            mistakes += [(leaf, Mistake("is missing")) for leaf in _required_leaves(path) if path not in explained]
        elif item["type"] == "extra_forbidden":
            meant = unknown[item["loc"]]
            mistakes.append((path, Mistake("unknown key", meant=None if meant is None else shown_path(meant))))
        else:
            mistakes.append((path, _broken_rule(item)))
    return [replace(mistake, key=shown_path(path), source=source_of(path)) for path, mistake in mistakes]


def shown_path(path: KeyPath) -> str:
    """``("search", "rank", 2)`` as ``search.rank[2]``."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{cut(toml_key(part), _KEY_WIDTH)}" for part in path)
    return shown.removeprefix(".")


def shown_value(value: Any) -> str:
    """A value as TOML, cut short when long."""
    try:
        return cut(toml_value(value))
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def _broken_rule(item: ErrorDetails) -> Mistake:
    rule, suggestion = _rule(item)
    meant = None if suggestion is None else toml_value(suggestion)
    return Mistake(rule, got=shown_value(item["input"]), meant=meant)


def _rule(item: ErrorDetails) -> tuple[str, str | None]:
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        sentence, bound = _BOUNDS[kind]
        return sentence.format(_number(context[bound])), None
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'|(True|False)", context["expected"])
        return _choice_rule([text or truth.lower() for text, truth in choices], item["input"])
    if kind == "value_error" and isinstance(context["error"], ChoiceError):
        return context["error"].rule, context["error"].suggestion
    if kind == "value_error":
        return str(context["error"]), None
    if kind in ("string_too_short", "too_short"):
        return "must not be empty", None
    if kind == "finite_number":
        return "must be a finite number", None
    if kind == "string_pattern_mismatch":
        return 'must be letters, digits, ".", "_" and "-", starting with a letter or a digit', None
    return _TYPES.get(kind.split("_")[0]) or item["msg"], None


def _choice_rule(choices: list[str], value: Any) -> tuple[str, str | None]:
    return one_of(choices), closest(value, choices) if isinstance(value, str) else None


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) and abs(bound) < _LONG else f"{bound:g}"


def _written_path(item: ErrorDetails, raw: Mapping[str, Any]) -> KeyPath:
    """The location, less what only pydantic sees: union tags, and ``[0]`` of a single value that was read as a list."""
    path: KeyPath = ()
    value: Any = raw
    for part in _keys(item["loc"]):
        if isinstance(part, int):
            in_list = isinstance(value, list) and part < len(value)
            if not in_list or (value == item["input"] and value[part] != item["input"]):
                continue
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
        path = (*path, part)
    return path


def _keys(location: KeyPath) -> KeyPath:
    """Less the tag that pydantic puts behind the key of a union; elsewhere its name is a key like others."""
    place = len(_TAGGED)
    tagged = location[:place] == _TAGGED and location[place : place + 1] and location[place] in UNION_TAGS
    return (*_TAGGED, *location[place + 1 :]) if tagged else location


def _meant_key(path: KeyPath) -> KeyPath | None:
    """The key an unknown one stands for: what PEFT calls so, its name in another table, or the nearest name, in its own
    table first."""
    name = str(path[-1])
    if name in _PEFT_NAMES:
        return "search", _PEFT_NAMES[name]
    known = [key for key, _ in _known_keys(Experiment)]
    beside = {str(key[-1]): key for key in known if key[:-1] == path[:-1]}
    elsewhere = {str(key[-1]): key for key in reversed(known) if key[:-1] != path[:-1]}
    if name in elsewhere:
        return elsewhere[name]
    for names in (beside, elsewhere):
        if (nearest := closest(name, names)) is not None:
            return names[nearest]
    return None


def is_key(name: str) -> bool:
    """Whether ``name`` is that of a value of the file, or of a part of it: ``search.rank``, ``search.rank[2]``."""
    return name.partition("[")[0] in {shown_path(key) for key, _ in _known_keys(Experiment)}


def _required_leaves(path: KeyPath) -> list[KeyPath]:
    """A missing key, or the required keys of a missing table."""
    return [key for key, required in _known_keys(Experiment) if key[: len(path)] == path and required]


def _known_keys(table: type[BaseModel], parent: KeyPath = ()) -> Iterator[tuple[KeyPath, bool]]:
    """Every key path of the file, and whether it is a required value (a table is not; its values may be)."""
    for name, field in table.model_fields.items():
        inner = _table_in(field.annotation)
        yield (*parent, name), inner is None and field.is_required()
        if inner is not None:
            yield from _known_keys(inner, (*parent, name))


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part)) is not None), None)
