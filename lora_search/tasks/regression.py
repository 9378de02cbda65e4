"""Regression: a number for a text or a pair of texts.

A head begins by answering 0, give or take a little. So it is trained on standardised numbers, less the mean of the
training examples and over their standard deviation: then every label asks for learning rates of the same size, and the
first steps are not spent on reaching the mean. What is predicted, scored and exported is in the label's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_search.data import Dataset, EncodedExamples, Splits
from lora_search.data.numbers import Numbers, load_numbers
from lora_search.metrics import NUMBER_METRICS, Metric, scores_of
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec
from lora_search.tasks.of_texts import OfTexts
from lora_search.tasks.strata import spread_over_folds
from lora_search.tasks.task import Examples, OnWords


@dataclass(frozen=True)
class Regression(OfTexts):
    """A head over one token or their mean gives a number; the loss is its squared error, in standard deviations."""

    name: str = "regression"
    peft_type: str = "SEQ_CLS"
    metrics: tuple[Metric, ...] = NUMBER_METRICS
    compared: str = "predictions, in standard deviations of the label,"
    predicts_probabilities: bool = False
    purpose: str = "gives a text its {labels}, a number"
    pipeline: str = "text-classification"
    reading: str = "[number for (number,) in model(**encoded).logits.tolist()]"
    on_words: OnWords | None = "numbers"

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        return load_numbers(spec, seed)

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """Stratified by how great the number is, where groups allow it."""
        return spread_over_folds(dataset, noun="example", folds=folds, holdout=holdout, seed=seed)

    def head(self, label_names: Sequence[str]) -> TaskHead:
        return TaskHead(
            task=self.name,
            purpose="score text",
            auto_class="AutoModelForSequenceClassification",
            label_names=tuple(label_names)[:1],
            config={"problem_type": "regression"},
        )

    def objective(self, data: EncodedExamples) -> NumberObjective:
        assert data.answers is not None, "of encode"
        return NumberObjective(data.answers)


@dataclass(frozen=True, eq=False)
class NumberObjective:
    """Mean squared error, one number per example; a prediction is that number in the label's own unit.

    Attributes:
        numbers: (examples,), the right ones.
        centre, spread: what a model answers is a number less ``centre``, over ``spread``.
    """

    numbers: Numbers
    centre: float = 0.0
    spread: float = 1.0

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(examples,), as the model is to answer them."""
        return ((self.numbers - self.centre) / self.spread).astype(np.float32)

    @property
    def units(self) -> Examples:
        """One each: the loss is a mean over examples."""
        return np.ones(len(self.numbers), dtype=np.int64)

    @property
    def deviation(self) -> float:
        """Standard deviation of all numbers."""
        return float(self.numbers.std())

    def trained_on(self, train: Examples) -> NumberObjective:
        """The same, standardised by the mean and the standard deviation of some examples."""
        known = self.numbers[train]
        return replace(self, centre=float(known.mean()), spread=float(known.std()) or 1.0)

    def rows(self, examples: Examples) -> Examples:
        """One each."""
        return examples

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits[:, 0].float() - targets).square()

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        """For who knows only the mean of ``train``."""
        targets = self.targets.astype(np.float64)
        return np.asarray((targets - targets[train].mean()) ** 2)

    def guess(self, train: Examples, rows: Examples) -> Tensor:
        """The mean of ``train``."""
        return torch.full((len(rows), 1), float(self.targets[train].mean()))

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What the model answers, float32 (rows, 1)."""
        return logits.float()

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        standard = np.array(answers, dtype=np.float64).reshape(len(examples), 1)
        return np.asarray(standard * self.spread + self.centre, dtype=np.float32)

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        return scores_of(NUMBER_METRICS, self.numbers[examples], predicted)
