"""``verdict.json``, read back only if it is one: what readers of a study rely on is checked here, once for all of them.

What a verdict means is not known here, only its shape. Keys beyond these are kept, so that a newer file can be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from lora_search.errors import StudyError

_REMEDY = "delete it, and the study is judged anew"
_MOST_NAMED = 4

_Number = float | None  # what is not finite is null


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class _Trial(_Shape):
    trial: int
    adapter: dict[str, Any]
    score_mean: float
    score_interval: tuple[_Number, _Number]
    adapter_parameters: int
    head_parameters: int
    seconds: float


class _Comparison(_Shape):
    trial: int
    difference: _Number
    interval: tuple[_Number, _Number]
    probability_not_worse: _Number
    status: str
    against: int | None


class _Verdict(_Shape):
    status: Literal["decided", "undecided", "no-trials"]
    sentence: str
    recommended: _Trial | None
    best: _Trial | None
    margin: float
    confidence: float
    probability_not_worse: _Number
    metric: str
    cells_trained: int
    cells_skipped_by_racing: int | None
    corrected_score: _Number
    corrected_interval: tuple[_Number, _Number] | None
    holdout_score: _Number
    more_cells_needed: int | None
    warnings: list[str]
    comparisons: list[_Comparison]

    @field_validator("recommended", "best")
    @classmethod
    def _is_there(cls, trial: _Trial | None, info: ValidationInfo) -> _Trial | None:
        if trial is None and info.data.get("status") != "no-trials":
            raise ValueError("must be a trial unless the status is no-trials")
        return trial


def read_verdict(path: Path) -> dict[str, Any] | None:
    """The content of a ``verdict.json``, or ``None`` if there is no such file.

    Raises:
        StudyError: it cannot be read, or is no verdict.
    """
    try:
        text = path.read_text(encoding="utf-8")
        verdict = json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StudyError.about(path, "must be readable", got=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise StudyError.about(path, "must be JSON", got=f"a damaged file: {error}", hint=_REMEDY) from error
    if not isinstance(verdict, dict):
        raise StudyError.about(path, "must be a JSON object", got=type(verdict).__name__, hint=_REMEDY)
    try:
        _Verdict.model_validate_json(text)
    except ValidationError as error:
        raise StudyError.about(path, "must be a verdict", got=f"one {_shortcoming(error)}", hint=_REMEDY) from error
    return verdict


def named_trials(verdict: Mapping[str, Any]) -> set[int]:
    """The numbers of all trials a verdict is on."""
    named = (verdict["recommended"], verdict["best"], *verdict["comparisons"])
    return {trial["trial"] for trial in named if trial is not None}


def _shortcoming(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    missing = [_key(item) for item in found if item["type"] == "missing"]
    if missing:
        rest = len(missing) - _MOST_NAMED
        return f"without {', '.join(missing[:_MOST_NAMED])}{f' and {rest} more' if rest > 0 else ''}"
    message = found[0]["msg"].removeprefix("Value error, ")
    return f"whose {_key(found[0])} is wrong: {message[0].lower()}{message[1:]}"


def _key(item: ErrorDetails) -> str:
    return ".".join(str(part) for part in item["loc"])
