"""Whether a study may go on under an experiment: every key in which the two differ, but for those that may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_search.errors import Mistake
from lora_search.spec import Experiment, with_local_paths
from lora_search.spec.baselines import LEARNING_RATES
from lora_search.spec.execution import ExecutionSpec
from lora_search.spec.quoting import cut
from lora_search.spec.toml import toml_value

_VALUE_WIDTH = 200  # for the difference of two long lists may be at their ends

MAY_CHANGE: frozenset[str] = frozenset(
    {
        "baselines.include",
        *(f"baselines.learning_rate.{name}" for name in LEARNING_RATES),
        *(f"execution.{name}" for name in ExecutionSpec.model_fields),
        "search.trials",
        "search.cells",
        "training.gradient_checkpointing",
        "verdict.margin",
        "verdict.confidence",
        "verdict.extra_repeats",
    }
)
"""How long to search, in how much memory, by whom, what to compare with, and when to be content: none changes what a
recorded cell means."""


def differences(study: Experiment, experiment: Experiment) -> list[Mistake]:
    """``search.rank: the study has [1, 2], the experiment says [4]`` for each key that differs and may not.

    A path that the study has as it was written is compared as the one it names from the current directory.
    """
    study, experiment = with_local_paths(study), with_local_paths(experiment)
    pairs = _differing(study.model_dump(mode="json"), experiment.model_dump(mode="json"))
    return [
        Mistake(f"the study has {_shown(before)}, the experiment says {_shown(now)}", key)
        for key, before, now in pairs
        if key not in MAY_CHANGE
    ]


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], table: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in now:
        if isinstance(before[key], Mapping) and isinstance(now[key], Mapping):
            yield from _differing(before[key], now[key], f"{table}{key}.")
        elif before[key] != now[key]:
            yield f"{table}{key}", before[key], now[key]


def _shown(value: Any) -> str:
    return "nothing" if value is None else cut(toml_value(value), _VALUE_WIDTH)
