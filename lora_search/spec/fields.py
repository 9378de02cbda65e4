"""The kinds of value in an experiment file: lists of choices that may be written as one value; the learning rate."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from lora_search.metrics import VERDICT_METRICS
from lora_search.spec.names import canonical_layers, canonical_rank_pattern, canonical_targets
from lora_search.spec.suggestions import ChoiceError, closest, one_of

LARGEST_RANK = 4096
SHORTEST_LENGTH = 4  # that data.max_length may be, in tokens


def _as_in_a_file(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, range):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


class Section(BaseModel):
    """A table of the file: frozen, no unknown keys, no infinities. From Python its values may also be what no file can
    have: paths, ranges, numbers and arrays of NumPy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_in_a_file(cls, given: Any) -> Any:
        return {key: _as_in_a_file(value) for key, value in given.items()} if isinstance(given, dict) else given


class Range(Section):
    """A learning-rate range, searched on a log scale."""

    low: float = Field(gt=0, le=1e30)
    high: float = Field(gt=0, le=1e30)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


def listed(value: Any) -> tuple[Any, ...]:
    """One value where a list is meant: ``rank = 8`` reads as ``rank = [8]``."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _layer_choices(value: Any) -> tuple[Any, ...]:
    """As ``listed``; and ``layers = [3, 4, 5]`` is one choice of three layers, for a bare number is no choice."""
    is_one = isinstance(value, list | tuple) and value and all(type(item) is int for item in value)
    return (value,) if is_one else listed(value)


def _columns(value: Any) -> str | tuple[Any, ...]:
    """A column, or several; a list of one is that one."""
    names = listed(value)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a column, or a list of columns")
    if len(set(names)) < len(names):
        raise ValueError("must not repeat a column")
    return names[0] if len(names) == 1 else names


def _metric_name(value: Any) -> str:
    if isinstance(value, str) and value in VERDICT_METRICS:
        return value
    raise ChoiceError(one_of(VERDICT_METRICS), closest(value, VERDICT_METRICS) if isinstance(value, str) else None)


def _rate_kind(value: Any) -> str | None:
    if isinstance(value, dict | Range):
        return "range"
    if value == "auto":
        return "word"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else None


def _column_number_as_text(value: Any) -> Any:
    """Columns without names, as those of CoNLL files, go by their number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# The last argument of each validator is what an editor should accept, for the JSON Schema.
Rank = Annotated[int, Field(ge=1, le=LARGEST_RANK)]
Ranks = Annotated[tuple[Rank, ...], BeforeValidator(listed, json_schema_input_type=Rank | tuple[Rank, ...])]
Ratio = Annotated[float, Field(gt=0, le=1e30)]
Ratios = Annotated[tuple[Ratio, ...], BeforeValidator(listed, json_schema_input_type=Ratio | tuple[Ratio, ...])]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Dropouts = Annotated[tuple[Dropout, ...], BeforeValidator(listed, json_schema_input_type=Dropout | tuple[Dropout, ...])]
DoraChoice = Annotated[bool, Field(strict=True)]
DoraChoices = Annotated[
    tuple[DoraChoice, ...], BeforeValidator(listed, json_schema_input_type=DoraChoice | tuple[DoraChoice, ...])
]
Targets = Annotated[str, BeforeValidator(canonical_targets, json_schema_input_type=str | tuple[str, ...])]
TargetChoices = Annotated[
    tuple[Targets, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[str | tuple[str, ...], ...])
]
Layer = Annotated[int, Field(ge=0)]
Layers = Annotated[str, BeforeValidator(canonical_layers, json_schema_input_type=str | tuple[Layer, ...])]
LayerChoices = Annotated[
    tuple[Layers, ...],
    BeforeValidator(_layer_choices, json_schema_input_type=str | tuple[str | Layer | tuple[Layer, ...], ...]),
]
RankPattern = Annotated[str, BeforeValidator(canonical_rank_pattern, json_schema_input_type=str)]
RankPatterns = Annotated[tuple[RankPattern, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...])]
WordColumn = Annotated[str, BeforeValidator(_column_number_as_text, json_schema_input_type=str | int)]
Texts = Annotated[tuple[str, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...])]
Columns = Annotated[str | tuple[str, ...], BeforeValidator(_columns, json_schema_input_type=str | tuple[str, ...])]
LearningRate = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[float, Field(gt=0, le=1e30), Tag("number")]
    | Annotated[Literal["auto"], Tag("word")],
    Discriminator(_rate_kind, "learning_rate", 'must be "auto", a number, or a range { low = ..., high = ... }'),
]
MetricName = Annotated[
    str, BeforeValidator(_metric_name), WithJsonSchema({"enum": list(VERDICT_METRICS), "type": "string"})
]
UNION_TAGS: frozenset[str] = frozenset({"range", "number", "word"})
"""Tags pydantic puts into the location of a mistake; they are no keys of the file."""
