"""Text classification: one of several labels for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lora_search.data import Dataset, EncodedExamples, Splits, load_dataset
from lora_search.metrics import CLASS_METRICS, Metric, scores_of
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec
from lora_search.tasks.of_texts import OfTexts
from lora_search.tasks.task import Examples, OnWords, frequency_losses


@dataclass(frozen=True)
class TextClassification(OfTexts):
    """A head over one token or their mean gives a logit per label; the loss is their cross-entropy."""

    name: str = "text-classification"
    peft_type: str = "SEQ_CLS"
    metrics: tuple[Metric, ...] = CLASS_METRICS
    compared: str = "class probabilities"
    predicts_probabilities: bool = True
    purpose: str = "tells {labels} apart"
    pipeline: str = "text-classification"
    reading: str = "[model.config.id2label[label] for label in model(**encoded).logits.argmax(-1).tolist()]"
    on_words: OnWords | None = "classes"

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        return load_dataset(spec, seed)

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """Stratified by label."""
        return Splits.make(
            dataset.labels, dataset.groups, folds=folds, holdout=holdout, seed=seed, label_names=dataset.label_names
        )

    def head(self, label_names: Sequence[str]) -> TaskHead:
        return TaskHead(
            task=self.name,
            purpose="classify text",
            auto_class="AutoModelForSequenceClassification",
            label_names=tuple(label_names),
            config={"problem_type": "single_label_classification"},
        )

    def objective(self, data: EncodedExamples) -> ClassObjective:
        return ClassObjective(data.labels, len(data.label_names))


@dataclass(frozen=True, eq=False)
class ClassObjective:
    """Cross-entropy over classes, one answer per example; a prediction is the probability of each class.

    Attributes:
        targets: (examples,), the class of each.
        classes: how many there are.
    """

    targets: Examples
    classes: int

    @property
    def units(self) -> Examples:
        """One each: the loss is a mean over examples."""
        return np.ones_like(self.targets)

    def rows(self, examples: Examples) -> Examples:
        """One each."""
        return examples

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, reduction="none")

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        return frequency_losses(self.targets[train], self.classes)[self.targets]

    def guess(self, train: Examples, rows: Examples) -> Tensor:
        shares = -frequency_losses(self.targets[train], self.classes)
        return torch.from_numpy(shares).float().expand(len(rows), -1)

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Probabilities, float32 (rows, classes)."""
        return logits.float().softmax(-1)

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return np.array(answers, dtype=np.float32).reshape(len(examples), self.classes)

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        return scores_of(CLASS_METRICS, self.targets[examples], predicted)
