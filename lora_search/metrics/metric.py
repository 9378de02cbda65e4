"""What a metric is: counts that add up over examples, and the score they come to.

A score is a function of sums: correct answers among all answers, hits of each class among what was predicted. So
folds, bootstrap samples and pooled predictions are all scored by one piece of code, which never sees predictions
twice: ``score(counts.sum(axis=0))`` is the score of those examples, ``score(weights @ counts)`` that of a sample in
which they occur so often.

Nothing is known here of models, texts or studies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

Unit = Literal["points", "nats", "tokens", "label units"]
"""What differences are told in: points are hundredths of a score that is a share; nats are natural logarithms; tokens
are those of a perplexity; label units are whatever the label is measured in, and may be large or small."""


class Metric(Protocol):
    """One way to score predictions.

    Attributes:
        name: its key in experiments, tables and the database: ``macro_f1``.
        title: its name in running text: ``macro F1``.
        unit: what differences are told in.
        greater_is_better: False for losses and errors.
        bounds: the lowest and the highest score there can be; infinite where there is no bound.
        mean_over_examples: whether the score is the mean of the examples' own scores, which are ``score(counts)``.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def unit(self) -> Unit: ...

    @property
    def greater_is_better(self) -> bool: ...

    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def mean_over_examples(self) -> bool: ...

    def counts(self, truth: Array, predicted: Array) -> Array:
        """What each example adds.

        Args:
            truth: (n, ...), what is right for each example.
            predicted: (n, columns), what was predicted for it, as recorded out of fold.

        Returns:
            (n, counts): whole numbers where they count something, float64 where they are sums.
        """

    def score(self, counts: Floats) -> Floats:
        """The score of sums of counts, (..., counts) -> (...)."""

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """What the best answer that ignores the examples scores, from the truth (n, ...) alone."""


def scores_of(metrics: Iterable[Metric], truth: Array, predicted: Array) -> dict[str, float]:
    """The score of one set of predictions in each metric, by its name; NaN where there are no examples.

    Args:
        metrics: of the kind of predictions.
        truth, predicted: as ``Metric.counts`` takes them.
    """
    if not len(predicted):
        return {metric.name: float("nan") for metric in metrics}
    return {metric.name: float(metric.score(total(metric.counts(truth, predicted)))) for metric in metrics}


def total(counts: Array) -> Floats:
    """Sums over examples, (n, counts) -> (counts,). Each column is added up as one row of numbers: in pairs, which
    loses least."""
    return np.array([column.sum() for column in np.ascontiguousarray(counts.T)], dtype=np.float64)


def share(part: Floats, whole: Floats) -> Floats:
    """``part`` of ``whole``, which counts something; 0 where there is none."""
    return np.asarray(part / np.maximum(whole, 1.0))
