"""Metrics of entities found in texts, and of the tags they are made of.

What is recorded of an example is what it adds: ``predicted`` is (n, 9), the counts of ``COLUMNS``, of which every
metric takes those it needs. ``truth`` is not looked at: what was right is in the counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_search.metrics.metric import Array, Floats, Unit, share

COLUMNS: tuple[str, ...] = (
    "hits",
    "predicted entities",
    "actual entities",
    "hits, read leniently",
    "predicted entities, read leniently",
    "actual entities, read leniently",
    "right tags",
    "tags",
    "nats",
)
"""What a prediction consists of. A hit is an entity found with its type and both its ends (see ``spans``)."""

_STRICT, _LENIENT, _TAGS, _NATS = (0, 1, 2), (3, 4, 5), (6, 7), (8, 7)


@dataclass(frozen=True)
class EntityF1:
    """F1 = 2 hits / (predicted + actual) over all entities of all types: micro-averaged; 0 where there are none."""

    name: str = "entity_f1"
    title: str = "entity F1"
    columns: tuple[int, ...] = _STRICT
    unit: Unit = "points"
    greater_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Hits, predicted and actual entities."""
        return np.asarray(np.rint(predicted[:, list(self.columns)]), dtype=np.int64)

    def score(self, counts: Floats) -> Floats:
        return share(2.0 * counts[..., 0], counts[..., 1] + counts[..., 2])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0: no entity is found without reading."""
        return 0.0


@dataclass(frozen=True)
class EntityPrecision(EntityF1):
    """Share of the predicted entities that are hits; 0 where none is predicted."""

    name: str = "entity_precision"
    title: str = "entity precision"

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])


@dataclass(frozen=True)
class EntityRecall(EntityF1):
    """Share of the actual entities that are hits; 0 where there are none."""

    name: str = "entity_recall"
    title: str = "entity recall"

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 2])


@dataclass(frozen=True)
class TokenAccuracy(EntityF1):
    """Share of the words whose tag is right, O included."""

    name: str = "token_accuracy"
    title: str = "token accuracy"
    columns: tuple[int, ...] = _TAGS

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """0, a bound: what is always answering O scores is not known from the examples' strata."""
        return 0.0


@dataclass(frozen=True)
class TokenLogLoss:
    """Mean negative log probability of the right tag over words, in nats."""

    name: str = "token_log_loss"
    title: str = "token log loss"
    unit: Unit = "nats"
    greater_is_better: bool = False
    bounds: tuple[float, float] = (0.0, float("inf"))
    mean_over_examples: bool = False

    def counts(self, truth: Array, predicted: Array) -> Array:
        """Nats, and words."""
        return np.asarray(predicted[:, list(_NATS)], dtype=np.float64)

    def score(self, counts: Floats) -> Floats:
        return share(counts[..., 0], counts[..., 1])

    def score_of_knowing_nothing(self, truth: Array) -> float:
        """No bound is known from the examples' strata."""
        return float("inf")


ENTITY_F1_LENIENT = EntityF1("entity_f1_lenient", "lenient entity F1", _LENIENT)
"""As conlleval reads entities: what breaks the rules of the scheme counts where it can be read."""
