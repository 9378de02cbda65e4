"""One home for every metric: its name, direction, bounds and unit, the counts it is made of, and what knowing nothing
scores. NumPy only."""

from collections.abc import Mapping

from lora_search.errors import ExperimentError
from lora_search.metrics.classes import Accuracy, LogLoss, MacroF1, MatthewsCorrelation
from lora_search.metrics.completions import CompletionAccuracy, CompletionLoss, Perplexity
from lora_search.metrics.entities import (
    ENTITY_F1_LENIENT,
    EntityF1,
    EntityPrecision,
    EntityRecall,
    TokenAccuracy,
    TokenLogLoss,
)
from lora_search.metrics.labels import THRESHOLD, MicroF1, SubsetAccuracy
from lora_search.metrics.metric import Array, Floats, Metric, Unit, scores_of, total
from lora_search.metrics.numbers import PearsonCorrelation, RootMeanSquaredError, SpearmanCorrelation

_MACRO_F1, _LOG_LOSS = MacroF1(), LogLoss()

CLASS_METRICS: tuple[Metric, ...] = (Accuracy(), _MACRO_F1, MatthewsCorrelation(), _LOG_LOSS)
"""What predictions of one class per example are scored by."""

LABEL_METRICS: tuple[Metric, ...] = (MicroF1(), _MACRO_F1, SubsetAccuracy(), _LOG_LOSS)
"""What probabilities of any number of labels per example are scored by."""

ENTITY_METRICS: tuple[Metric, ...] = (
    EntityF1(),
    EntityPrecision(),
    EntityRecall(),
    ENTITY_F1_LENIENT,
    TokenAccuracy(),
    TokenLogLoss(),
)
"""What counts of entities and tags are scored by."""

COMPLETION_METRICS: tuple[Metric, ...] = (CompletionLoss(), Perplexity(), CompletionAccuracy())
"""What sums over the tokens of a language model are scored by."""

NUMBER_METRICS: tuple[Metric, ...] = (PearsonCorrelation(), SpearmanCorrelation(), RootMeanSquaredError())
"""What predictions of one number per example are scored by."""

_KINDS = (CLASS_METRICS, LABEL_METRICS, ENTITY_METRICS, COMPLETION_METRICS, NUMBER_METRICS)

METRICS: Mapping[str, Metric] = {metric.name: metric for kind in _KINDS for metric in kind}
"""Every metric, by its name."""

_LOSSES_TO_DECIDE_BY = ("completion_loss", "rmse")

VERDICT_METRICS: tuple[str, ...] = tuple(
    name for name, metric in METRICS.items() if metric.greater_is_better or name in _LOSSES_TO_DECIDE_BY
)
"""What an experiment may name. Beside a loss of classes there is a score, which is what one wants of them; of a
language model the loss is, and of numbers the error may be."""


def metrics_beside(name: str) -> tuple[Metric, ...]:
    """All metrics of the kind of predictions that the one of this name scores, itself among them."""
    return next((kind for kind in _KINDS if any(metric.name == name for metric in kind)), CLASS_METRICS)


def direction(name: str) -> float:
    """1 where a greater score of this metric is better, -1 where a lower one is. Multiplied by it, a score is a
    *merit*: the greater the better, whatever the metric. An unknown metric is taken for a score."""
    return 1.0 if name not in METRICS or METRICS[name].greater_is_better else -1.0


def loss_beside(name: str) -> Metric:
    """The loss of the same predictions: less noisy than what they score, so rates are told apart by it."""
    return next(metric for metric in metrics_beside(name) if not metric.greater_is_better)


def has_own_unit(name: str) -> bool:
    """Whether a score is measured in the unit of the label: no number is then great or small by itself."""
    return name in METRICS and METRICS[name].unit == "label units"


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
    "COMPLETION_METRICS",
    "ENTITY_METRICS",
    "LABEL_METRICS",
    "METRICS",
    "NUMBER_METRICS",
    "THRESHOLD",
    "VERDICT_METRICS",
    "Array",
    "Floats",
    "Metric",
    "Unit",
    "direction",
    "has_own_unit",
    "loss_beside",
    "metric_named",
    "metrics_beside",
    "scores_of",
    "total",
]
