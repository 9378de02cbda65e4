"""Metrics of texts that a language model goes on with, token by token.

What is recorded of an example is what it adds: ``predicted`` is (n, 3), the sums of ``COLUMNS`` over its trained
tokens. ``truth`` is not looked at: what was right is in the sums. A score is over all tokens of all examples alike, as
the loss that is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_search.metrics.metric import Array, Floats, Unit, share

COLUMNS: tuple[str, ...] = ("nats", "tokens", "right tokens")
"""What a prediction consists of: negative log probabilities of the right tokens, how many there are, and how many were
the most probable ones."""

_NATS, _TOKENS, _RIGHT = range(3)
_MOST_NATS = 700.0  # the exponential of more is no float64


@dataclass(frozen=True)
class CompletionLoss:
    """Mean negative log probability of a trained token given those before it, in nats."""

    name: str = "completion_loss"
    title: str = "completion loss"
    unit: Unit = "nats"
    greater_is_better: bool = False
    bounds: tuple[float, float] = (0.0, float("inf"))
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Nats, and tokens."""
        return np.asarray(predicted[:, [_NATS, _TOKENS]], dtype=np.float64)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """No bound is known from the examples alone: that of the base, untrained, is measured."""
        return float("inf")


@dataclass(frozen=True)
class Perplexity(CompletionLoss):
    """Exponential of the completion loss: among how many equally probable tokens the right one would be as hard to
    tell."""

    name: str = "perplexity"
    title: str = "perplexity"
    unit: Unit = "tokens"
    bounds: tuple[float, float] = (1.0, float("inf"))

    def score(self, counts: Floats) -> Floats:
        return np.asarray(np.exp(np.minimum(super().score(counts), _MOST_NATS)))


@dataclass(frozen=True)
class CompletionAccuracy:
    """Share of the trained tokens that were the most probable ones, given those before them."""

    name: str = "completion_accuracy"
    title: str = "token accuracy"
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Right tokens, and tokens."""
        return np.asarray(np.rint(predicted[:, [_RIGHT, _TOKENS]]), dtype=np.int64)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0, a bound: the share of the most frequent token is not known from the examples alone."""
        return 0.0
