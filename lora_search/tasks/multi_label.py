"""Multi-label classification: any number of labels for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lora_search.data import Dataset, EncodedExamples, Splits
from lora_search.data.label_sets import load_label_sets
from lora_search.metrics import LABEL_METRICS, THRESHOLD, Metric, scores_of
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec
from lora_search.tasks.of_texts import OfTexts
from lora_search.tasks.task import Examples, OnWords


@dataclass(frozen=True)
class MultiLabelClassification(OfTexts):
    """A head over one token or their mean gives a logit per label; the loss is the binary cross-entropy of each, a mean
    over labels and examples."""

    name: str = "multi-label-classification"
    peft_type: str = "SEQ_CLS"
    metrics: tuple[Metric, ...] = LABEL_METRICS
    compared: str = "label probabilities"
    predicts_probabilities: bool = True
    pipeline: str = "text-classification"
    purpose: str = "tells which of {labels} a text has"
    reading: str = (
        "[[model.config.id2label[label] for label, share in enumerate(row) if share >= "
        f"{THRESHOLD}] for row in model(**encoded).logits.sigmoid().tolist()]"
    )
    on_words: OnWords | None = "labels"

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        return load_label_sets(spec, seed)

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """Each fold with its share of every label, and of examples."""
        assert dataset.answers is not None, "of load"
        everyone = np.ones((len(dataset), 1), dtype=np.int64)
        return Splits.make(
            np.concatenate([dataset.answers.astype(np.int64), everyone], axis=1),
            dataset.groups,
            folds=folds,
            holdout=holdout,
            seed=seed,
            label_names=[*dataset.label_names, "example"],
        )

    def head(self, label_names: Sequence[str]) -> TaskHead:
        return TaskHead(
            task=self.name,
            purpose="classify text",
            auto_class="AutoModelForSequenceClassification",
            label_names=tuple(label_names),
            config={"problem_type": "multi_label_classification"},
        )

    def objective(self, data: EncodedExamples) -> LabelSetObjective:
        assert data.answers is not None, "of encode"
        return LabelSetObjective(data.answers)


@dataclass(frozen=True, eq=False)
class LabelSetObjective:
    """Binary cross-entropy, a mean over labels; a prediction is the probability of each label.

    Attributes:
        members: uint8 (examples, labels), 1 for the labels an example has.
    """

    members: NDArray[np.uint8]

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(examples, labels)."""
        return self.members.astype(np.float32)

    @property
    def units(self) -> Examples:
        """One each: the loss is a mean over examples."""
        return np.ones(len(self.members), dtype=np.int64)

    def rows(self, examples: Examples) -> Examples:
        """One each."""
        return examples

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(1)

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        odds = self._log_odds(train)
        # log(1 + e^x) - x where the label is there
        return np.asarray((np.logaddexp(0.0, odds) - self.members * odds).mean(axis=1))

    def guess(self, train: Examples, rows: Examples) -> Tensor:
        return torch.from_numpy(self._log_odds(train)).float().expand(len(rows), -1)

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Probabilities, float32 (rows, labels)."""
        return logits.float().sigmoid()

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return np.array(answers, dtype=np.float32).reshape(len(examples), self.members.shape[1])

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        return scores_of(LABEL_METRICS, self.members[examples], predicted)

    def _log_odds(self, train: Examples) -> NDArray[np.float64]:
        """(labels,), of having each among some examples; none that has it counts as one, and all as all but one."""
        having = self.members[train].sum(axis=0, dtype=np.float64)
        having = np.clip(having, 1.0, max(len(train) - 1.0, 1.0))
        return np.asarray(np.log(having) - np.log(np.maximum(len(train) - having, 1.0)))
