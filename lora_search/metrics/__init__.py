"""One home for every metric: its name, direction, bounds and unit, the counts it is made of, and what knowing nothing
scores. NumPy only."""

from collections.abc import Mapping

from lora_search.errors import ExperimentError
from lora_search.metrics.classes import Accuracy, LogLoss, MacroF1, MatthewsCorrelation
from lora_search.metrics.entities import (
    ENTITY_F1_LENIENT,
    EntityF1,
    EntityPrecision,
    EntityRecall,
    TokenAccuracy,
    TokenLogLoss,
)
from lora_search.metrics.metric import Array, Floats, Metric, Unit, scores_of, total

CLASS_METRICS: tuple[Metric, ...] = (Accuracy(), MacroF1(), MatthewsCorrelation(), LogLoss())
"""What predictions of one class per example are scored by."""

ENTITY_METRICS: tuple[Metric, ...] = (
    EntityF1(),
    EntityPrecision(),
    EntityRecall(),
    ENTITY_F1_LENIENT,
    TokenAccuracy(),
    TokenLogLoss(),
)
"""What counts of entities and tags are scored by."""

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (*CLASS_METRICS, *ENTITY_METRICS)}
"""Every metric, by its name."""

VERDICT_METRICS: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.greater_is_better)
"""What an experiment may name: the verdict compares scores of which more is better."""


def metrics_beside(name: str) -> tuple[Metric, ...]:
    """All metrics of the kind of predictions that the one of this name scores, itself among them."""
    return ENTITY_METRICS if any(metric.name == name for metric in ENTITY_METRICS) else CLASS_METRICS


def loss_beside(name: str) -> Metric:
    """The log loss of the same predictions, in nats: less noisy than what they score, so rates are told apart by it."""
    return next(metric for metric in metrics_beside(name) if metric.unit == "nats")


def metric_named(name: str) -> Metric:
    """The metric of a name.

    Raises:
        ExperimentError: there is none.
    """
    if name not in METRICS:
        raise ExperimentError.about("verdict.metric", f"must be one of {', '.join(METRICS)}", got=name)
    return METRICS[name]


__all__ = [
    "CLASS_METRICS",
    "ENTITY_METRICS",
    "METRICS",
    "VERDICT_METRICS",
    "Array",
    "Floats",
    "Metric",
    "Unit",
    "loss_beside",
    "metric_named",
    "metrics_beside",
    "scores_of",
    "total",
]
