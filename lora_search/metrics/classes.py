"""Metrics of predictions of one class per example.

``truth`` is (n,), the class of each example, from 0; ``predicted`` is (n, classes), their probabilities, of which the
largest is the answer and the first wins a tie. Macro F1 and log loss are of several labels per example too: ``truth``
is then (n, labels), and what is answered is said in ``labels``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_search.metrics.labels import answer_of_shares, answered
from lora_search.metrics.metric import Array, Floats, Unit, share

_LEAST_PROBABILITY = 1e-7
"""A probability counts as no less in the log loss: certainty of the wrong class costs 16 nats, not infinitely many."""


@dataclass(frozen=True)
class Accuracy:
    """Share of the examples whose answer is right."""

    name: str = "accuracy"
    title: str = "accuracy"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = True

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Right answers, and answers."""
        right = predicted.argmax(axis=1) == truth
        return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """The share of the most frequent class, which is always answered."""
        return float(_shares(truth).max())


@dataclass(frozen=True)
class MacroF1:
    """Mean over all classes of F1 = 2 hits / (predicted + actual); 0 for a class that neither occurs nor is predicted.

    All classes, and not those that occur: so the mean is over the same classes in every fold and every sample.
    """

    name: str = "macro_f1"
    title: str = "macro F1"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Hits, answers and occurrences of each class: 3 columns times the classes."""
        return _class_counts(truth, predicted)

    def score(self, counts: Floats) -> Floats:
        hits, predicted, actual = np.split(counts, 3, axis=-1)
        either = predicted + actual
        f1 = share(2.0 * hits, either)
        return np.asarray(f1.sum(axis=-1) / hits.shape[-1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """1 / classes: answers drawn in proportion have an F1 of its share in each class. Always the most frequent
        class, with share p, would score 2 p / (1 + p) in one class of all, which is less. Of labels that of their
        shares, as micro F1."""
        if truth.ndim > 1:
            counts = self.counts(truth, answer_of_shares(truth)).sum(axis=0)
            return float(self.score(counts.astype(np.float64)))
        return 1.0 / len(_shares(truth))


@dataclass(frozen=True)
class MatthewsCorrelation:
    """Correlation of answers and truth over several classes (Gorodkin 2004, equation 8); 0 where either is constant."""

    name: str = "matthews_correlation"
    title: str = "Matthews correlation"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (-1.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Hits, answers and occurrences of each class: 3 columns times the classes."""
        return _class_counts(truth, predicted)

    def score(self, counts: Floats) -> Floats:
        hits, predicted, actual = np.split(counts, 3, axis=-1)
        size = actual.sum(axis=-1)
        covariance = hits.sum(axis=-1) * size - (predicted * actual).sum(axis=-1)
        spread = np.sqrt((size**2 - (predicted**2).sum(axis=-1)) * (size**2 - (actual**2).sum(axis=-1)))
        return np.asarray(np.where(spread > 0, covariance / np.where(spread > 0, spread, 1.0), 0.0))

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0: what ignores the examples correlates with nothing."""
        return 0.0


@dataclass(frozen=True)
class LogLoss:
    """Mean negative log probability of the right class, in nats; of labels that of whether each is there, averaged."""

    name: str = "log_loss"
    title: str = "log loss"
    unit: Unit = "nats"
    greater_is_better: bool = False
    bounds: tuple[float, float] = (0.0, float("inf"))
    mean_over_examples: bool = True

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Nats, and examples."""
        if truth.ndim > 1:
            likelihood = np.where(truth > 0, predicted, 1.0 - predicted.astype(np.float64))
        else:
            likelihood = predicted[np.arange(len(truth)), truth].astype(np.float64)
        nats = -np.log(np.clip(likelihood, _LEAST_PROBABILITY, None))
        nats = nats.mean(axis=1) if truth.ndim > 1 else nats
        return np.stack([nats, np.ones_like(nats)], axis=1)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """The entropy of the classes' shares, which are always answered; of labels that of each, a mean over them."""
        if truth.ndim > 1:
            return float(self.score(self.counts(truth, answer_of_shares(truth)).sum(axis=0)))
        shares = _shares(truth)
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())


def _class_counts(truth: Array, predicted: Array) -> Array:
    """int64 (n, 3 classes): hits, answers and occurrences of each class, or label."""
    if truth.ndim > 1:
        answers, actual = answered(predicted), truth > 0
        return np.concatenate([answers & actual, answers, actual], axis=1).astype(np.int64)
    every, classes = np.arange(len(truth)), predicted.shape[1]
    answers = predicted.argmax(axis=1)
    counts = np.zeros((len(truth), 3, classes), dtype=np.int64)
    counts[every, 1, answers] = 1
    counts[every, 2, truth] = 1
    counts[every, 0, truth] = answers == truth
    return counts.reshape(len(truth), 3 * classes)


def _shares(truth: Array) -> Floats:
    """Share of each class among the examples."""
    counts = np.bincount(truth)
    return np.asarray(counts / counts.sum(), dtype=np.float64)
