"""``[baselines]``: what is no adapter and is compared with them on the same folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from lora_search.spec.fields import Section, listed
from lora_search.spec.suggestions import ChoiceError, closest, one_of

BaselineName = Literal["majority", "tfidf", "head", "bitfit", "full", "hidden-state"]
BASELINES: tuple[BaselineName, ...] = ("majority", "tfidf", "head", "hidden-state", "bitfit", "full")
"""From what costs least to what costs most."""

BASE = "base"
"""A language model with nothing trained, which stands beside its adapters without being asked for."""

TITLES: Mapping[str, str] = {
    "majority": "majority",
    "tfidf": "TF-IDF",
    "head": "head alone",
    "hidden-state": "hidden-state adapter",
    "bitfit": "BitFit",
    "full": "full fine-tuning",
    BASE: "base as it is",
}
"""What figures and tables call them."""

_TITLES_OF: Mapping[str, Mapping[str, str]] = {
    "regression": {"majority": "mean"},
    "multi-label-classification": {"majority": "label frequencies"},
}


def title_of(name: str, task: str) -> str:
    """What figures and tables call a baseline of a task; the recommended adapter beside them."""
    return _TITLES_OF.get(task, {}).get(name) or TITLES.get(name, "LoRA, recommended")


LEARNING_RATES: Mapping[str, tuple[float, ...]] = {
    "head": (1e-3, 1e-2, 1e-1),
    "hidden-state": (3e-4, 1e-3, 3e-3, 1e-2),
    "bitfit": (3e-4, 1e-3, 3e-3),
    "full": (1e-5, 3e-5, 1e-4),
}
"""What is tried of each baseline that gradient descent trains, unless the file says otherwise: where people have found
the best rate of it, which is far lower for whole matrices than for biases, and highest for a head."""


def _with_defaults(value: Any) -> Any:
    """The rates given, and the default ones of the other baselines."""
    if not isinstance(value, Mapping):
        return value
    unknown = [str(name) for name in value if name not in LEARNING_RATES]
    if unknown:
        names = tuple(LEARNING_RATES)
        rule = one_of(names).replace("must be ", "must have no other keys than ").replace(" or ", " and ")
        raise ChoiceError(rule, closest(unknown[0], names))
    return {name: value.get(name, rates) for name, rates in LEARNING_RATES.items()}


Name = Annotated[BaselineName, Field()]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed, json_schema_input_type=Name | tuple[Name, ...])]
Rate = Annotated[float, Field(gt=0, le=1e30)]
Rates = Annotated[
    tuple[Rate, ...], BeforeValidator(listed, json_schema_input_type=Rate | tuple[Rate, ...]), Field(min_length=1)
]


class BaselinesSpec(Section):
    """``[baselines]``: which are trained after the search, and the learning rates tried of each.

    ``majority`` answers with the shares of the labels, or their mean; ``tfidf`` is logistic regression on words, of
    numbers ridge regression; ``head`` trains the head alone; ``bitfit`` the biases and the head; ``full``
    everything; ``hidden-state`` two low-rank corrections of the last hidden states, and the head. ``learning_rate``
    is a list for each that has one; on every fold a baseline is scored at the rate its other folds speak for.
    """

    include: Names = ("majority", "head")
    learning_rate: Annotated[dict[str, Rates], BeforeValidator(_with_defaults)] = Field(
        default_factory=lambda: dict(LEARNING_RATES)
    )

    @field_validator("include")
    @classmethod
    def _distinct(cls, value: tuple[BaselineName, ...]) -> tuple[BaselineName, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must not repeat a baseline")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _distinct_rates(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, rates in value.items():
            if len(set(rates)) < len(rates):
                raise ValueError(f"must not repeat a rate of {name}")
        return value

    @property
    def ordered(self) -> tuple[BaselineName, ...]:
        """Those included, the cheapest first."""
        return tuple(name for name in BASELINES if name in self.include)

    def rates_of(self, name: str) -> tuple[float | None, ...]:
        """What is tried of a baseline; None alone where it has no learning rate."""
        return self.learning_rate.get(name, (None,))
