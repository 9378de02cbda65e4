"""Who competes in a study: those trained to the end, and those that racing stopped."""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from lora_search.statistics.comparison import Posterior
from lora_search.statistics.examples import Recorded
from lora_search.statistics.matrix import ScoreMatrix, score_matrix
from lora_search.statistics.stopped import rivalries

_FINISHED_AND_STOPPED = ("complete", "pruned")


class Contest:
    """The score matrices that a verdict and its doubts are made from, each made when it is first asked for and kept, as
    are the pairs in it.

    Args:
        trials: the store's trials frame. cells: the store's cells frame.
        metric: the column of ``cells`` that holds the score.
        recorded: the predictions of the study, to compare by; None compares by the scores of folds.
    """

    def __init__(
        self, trials: pd.DataFrame, cells: pd.DataFrame, metric: str, recorded: Recorded | None = None
    ) -> None:
        self._frames = trials, cells, metric
        self._recorded = recorded
        self._rivalries: dict[int, tuple[Posterior, tuple[int, ...]]] = {}

    @cached_property
    def finished(self) -> ScoreMatrix:
        """The trials trained to the end."""
        return score_matrix(*self._frames, recorded=self._recorded)

    @cached_property
    def everyone(self) -> ScoreMatrix:
        """Those and the stopped ones, by the scores of folds."""
        return score_matrix(*self._frames, states=_FINISHED_AND_STOPPED)

    @cached_property
    def everyone_by_example(self) -> ScoreMatrix:
        """The same, with what single examples contribute."""
        return score_matrix(*self._frames, states=_FINISHED_AND_STOPPED, recorded=self._recorded)

    def rivalries(self, folds: int) -> tuple[Posterior, tuple[int, ...]]:
        """As :func:`stopped.rivalries`, of ``finished`` and ``everyone``."""
        if folds not in self._rivalries:
            self._rivalries[folds] = rivalries(self.finished, self.everyone, folds)
        return self._rivalries[folds]
