"""Whether an experiment asks its task for what that has: columns and a metric."""

from __future__ import annotations

from lora_search.errors import ExperimentError, Mistake
from lora_search.metrics import VERDICT_METRICS, has_own_unit
from lora_search.spec import Experiment
from lora_search.spec.baselines import BaselinesSpec
from lora_search.spec.experiment import DataSpec
from lora_search.spec.quoting import quoted
from lora_search.spec.suggestions import closest, one_of
from lora_search.tasks.task import Task

_KEYS_OF = {
    "text-classification": ("text", "text_pair", "label", "drop_labels"),
    "multi-label-classification": ("text", "text_pair", "label", "label_separator", "drop_labels"),
    "regression": ("text", "text_pair", "label"),
    "token-classification": ("tokens", "tags", "scheme"),
    "causal-lm": ("format", "messages", "prompt", "completion", "text"),
}


def _shown(given: str | tuple[str, ...]) -> str:
    return quoted(given) if isinstance(given, str) else ", ".join(map(quoted, given))


def check_keys(experiment: Experiment, task: Task) -> None:
    """Check the keys that have a meaning for some tasks only.

    Raises:
        ExperimentError: a column of another task, or a metric that is none of this one.
    """
    foreign = [key for keys in _KEYS_OF.values() for key in keys if key not in _KEYS_OF[task.name]]
    mistakes = [
        Mistake(f"must be left out for {task.name}", f"data.{key}", _shown(given))
        for key in dict.fromkeys(foreign)
        if (given := getattr(experiment.data, key)) != DataSpec.model_fields[key].default
    ]
    if task.on_words != "labels" and "label" in _KEYS_OF[task.name] and len(experiment.data.label_columns) > 1:
        rule = f"must be one column for {task.name}"
        mistakes.append(Mistake(rule, "data.label", _shown(experiment.data.label_columns)))
    if task.on_words is None and "tfidf" in experiment.baselines.include:
        place = experiment.baselines.include.index("tfidf")
        mistakes.append(Mistake(f"must be left out for {task.name}", f"baselines.include[{place}]", quoted("tfidf")))
    if task.name == "causal-lm" and experiment.baselines != BaselinesSpec():
        rule = "must be left out for causal-lm, which is compared with its base as it is"
        mistakes.append(Mistake(rule, "baselines"))
    names = [metric.name for metric in task.metrics if metric.name in VERDICT_METRICS]
    metric = experiment.verdict.metric
    if metric not in names:
        mistakes.append(
            Mistake(f"{one_of(names)} for {task.name}", "verdict.metric", quoted(metric), closest(metric, names))
        )
    if has_own_unit(metric) and "margin" not in experiment.verdict.model_fields_set:
        rule = f"must be given for {metric}, in the unit of the label"
        mistakes.append(Mistake(rule, "verdict.margin"))
    if mistakes:
        raise ExperimentError(mistakes)
