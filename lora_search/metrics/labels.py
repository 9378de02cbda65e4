"""Metrics of several labels per example, each of which it has or has not.

``truth`` is (n, labels), 1 for the labels an example has; ``predicted`` is (n, labels), the probability of each, which
is answered where it is ``THRESHOLD`` or more. Macro F1 and log loss are those of classes (``classes``), which take
labels too. Who knows nothing answers with the share of each label, at the same threshold: where all are rarer than
one half, with none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_search.metrics.metric import Array, Floats, Unit, share

THRESHOLD = 0.5


def answered(predicted: Array) -> Array:
    """bool (n, labels), which labels are answered."""
    return np.asarray(predicted >= THRESHOLD)


def answer_of_shares(truth: Array) -> Array:
    """float (n, labels): for every example the share of each label."""
    return np.broadcast_to(truth.mean(axis=0, dtype=np.float64), truth.shape)


@dataclass(frozen=True)
class MicroF1:
    """F1 = 2 hits / (answered + actual) over all labels of all examples; 0 where there are none."""

    name: str = "micro_f1"
    title: str = "micro F1"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Hits, answered and actual labels."""
        answers = answered(predicted)
        return np.stack([(answers & (truth > 0)).sum(axis=1), answers.sum(axis=1), (truth > 0).sum(axis=1)], axis=1)

    def score(self, counts: Floats) -> Floats:
        return share(2.0 * counts[..., 0], counts[..., 1] + counts[..., 2])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """Of the shares: what labels that most examples have bring, if there are such."""
        return float(self.score(self.counts(truth, answer_of_shares(truth)).sum(axis=0).astype(np.float64)))


@dataclass(frozen=True)
class SubsetAccuracy:
    """Share of the examples of which every label is answered right."""

    name: str = "subset_accuracy"
    title: str = "subset accuracy"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = True

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Examples that are all right, and examples."""
        right = (answered(predicted) == (truth > 0)).all(axis=1)
        return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """Of the most frequent set of labels, which is always answered."""
        _, counts = np.unique(truth, axis=0, return_counts=True)
        return float(counts.max() / len(truth))
