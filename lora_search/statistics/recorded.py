"""A recorded study as statistics see it: the store's tables, by their shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from lora_search.spec import Experiment
from lora_search.statistics.examples import Recorded


class RecordedStudy(Protocol):
    """What is judged: the store's tables, known here by their shape alone."""

    @property
    def experiment(self) -> Experiment: ...

    @property
    def environment(self) -> Mapping[str, Any]: ...

    @property
    def trials(self) -> pd.DataFrame: ...

    @property
    def cells(self) -> pd.DataFrame: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def baselines(self) -> pd.DataFrame:
        """baseline, learning_rate (NaN for none), repeat, fold, state, score, ... of what is no adapter."""

    def baseline_predictions(self) -> pd.DataFrame:
        """baseline, learning_rate, repeat, fold, example and probabilities p0, p1, ..."""

    def predictions(self) -> pd.DataFrame:
        """trial, repeat, fold, example and probabilities p0, p1, ..."""

    def examples(self) -> pd.DataFrame:
        """label and group of every example."""


def recorded_of(study: RecordedStudy) -> Recorded | None:
    """A study's predictions, to compare by; None before the first."""
    examples = study.examples()
    return None if examples.empty else Recorded(study.predictions(), examples)
