"""What a task is: all that differs between classifying texts, marking spans in them, and going on with them.

A task knows three worlds and joins them: the data (which columns, how they are split and encoded), the model (which
head, in which class of transformers), and the training (what the loss is a mean of, what a prediction is, what it is
scored by). Everything above and below knows none of this: the engine trains whatever has a loss per row, the store
keeps whatever has columns, the statistics compare whatever has a score.

The loss of a cell's batch is a mean over *units*: examples where each has one answer, trained tokens where each token
has one. A row of a micro-batch gives the sum over its own units, and the engine divides by the units of the whole
batch. So the loss is the same however a batch is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lora_search.data import Dataset, EncodedExamples, Splits
from lora_search.metrics import Metric
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec

Examples = NDArray[np.int64]
OnWords = Literal["classes", "labels", "numbers"]
"""The class of an example, its labels, or its number."""


@dataclass(frozen=True)
class RowTexts:
    """What a tokenizer is given for some rows.

    Attributes:
        rows: (m,) of the encoded data.
        texts: m texts, or lists of words.
        pairs: m second texts, or None.
    """

    rows: Examples
    texts: Sequence[Any]
    pairs: Sequence[str] | None

    @classmethod
    def of(cls, dataset: Dataset, examples: Examples) -> RowTexts:
        """Of examples that are a row each, texts or text pairs as they are."""
        pairs = None if dataset.pairs is None else [dataset.pairs[example] for example in examples]
        return cls(examples, [dataset.texts[example] for example in examples], pairs)


class Task(Protocol):
    """One kind of question that is put to a base.

    Attributes:
        name: as in ``model.task``.
        peft_type: PEFT's name for it: ``SEQ_CLS``.
        metrics: what every cell is scored by.
        compared: what of two predictions is compared per unit, in words: ``class probabilities``.
        predicts_probabilities: whether a prediction consists of probabilities, not of counts.
        purpose: what an adapter does, for a model card, with a place for the names of labels.
        pipeline: of transformers, which answers with such a model.
        reading: Python that makes answers of ``model``, ``tokenizer`` and ``encoded`` texts, for a model card.
        on_words: what a linear model can be asked that is given the words of an example; None where that is nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def peft_type(self) -> str: ...

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    @property
    def compared(self) -> str: ...

    @property
    def predicts_probabilities(self) -> bool: ...

    @property
    def purpose(self) -> str: ...

    @property
    def pipeline(self) -> str: ...

    @property
    def reading(self) -> str: ...

    @property
    def on_words(self) -> OnWords | None: ...

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        """Read, clean and sample the examples.

        Args:
            spec: ``[data]``.
            seed: the experiment's.
            folds: of every repeat; groups that nobody asked for, the documents of a file, must not stand in their way.

        Raises:
            DataError: every mistake found.
        """

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """Hold-out and folds, each with its share of everything that can be answered.

        Raises:
            DataError: too few of something.
        """

    def encode(self, dataset: Dataset, tokenizer: Any, max_length: int) -> EncodedExamples:
        """Token ids of every example, at most ``max_length`` each.

        Raises:
            DataError: an example of which nothing is left.
        """

    def head(self, label_names: Sequence[str]) -> TaskHead:
        """What is put on the base to answer with these labels."""

    def objective(self, data: EncodedExamples) -> Objective:
        """What training on these examples aims for."""

    def texts(self, dataset: Dataset, data: EncodedExamples, examples: Examples) -> RowTexts:
        """What the tokenizer makes the rows of some examples of."""

    def shown(self, data: EncodedExamples, tokenizer: Any) -> str | None:
        """An example as the model reads it, where that is not what the data say anyway; None elsewhere."""


class Objective(Protocol):
    """A task over one encoded dataset, as the engine sees it.

    An example is one row of the model's input, or several that are trained and predicted together.

    Attributes:
        targets: (rows, ...), what the loss compares the model's answers with.
        units: int64 (examples,), how many parts of the mean that is the loss each example holds.
    """

    @property
    def targets(self) -> NDArray[Any]: ...

    @property
    def units(self) -> Examples: ...

    def rows(self, examples: Examples) -> Examples:
        """The rows of some examples, in order."""

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, summed over its units, in nats; of numbers their squared error.

        Args:
            logits: of the model, (rows, ...), in its precision.
            targets: (rows, ...) on its device.

        Returns:
            float32 (rows,), of which the gradient is taken.
        """

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        """(examples,), the loss of each example, summed over its units, for who knows only how often each answer occurs
        among those of ``train``; one that does not is taken for having occurred once."""

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What of each row's logits is kept, (rows, ...): on the device, of one micro-batch and its targets."""

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The out-of-fold prediction for each of some examples, (n, columns), from the answers of their rows, in order.

        It is what is recorded, what metrics score and what an exported adapter has to give again.
        """

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        """Every metric of the task on these predictions, by name; NaN where there are no examples."""


def frequency_losses(answers: Examples, classes: int) -> NDArray[np.float64]:
    """(classes,), minus the log of how often each occurs among some answers, in nats."""
    counts = np.maximum(np.bincount(answers, minlength=classes), 1)
    return np.asarray(np.log(counts.sum()) - np.log(counts))


@runtime_checkable
class Guesses(Protocol):
    """An objective of which it can be said what a head would answer that reads nothing."""

    def guess(self, train: Examples, rows: Examples) -> Tensor:
        """The logits of some rows, (rows, ...), for who knows only how often each answer occurs among ``train``."""


@runtime_checkable
class Standardises(Protocol):
    """An objective over numbers, which models answer in a unit of their own: it depends on what is trained on.

    Attributes:
        centre, spread: a prediction is ``centre + spread * logit``.
        deviation: the standard deviation of all numbers.
    """

    @property
    def centre(self) -> float: ...

    @property
    def spread(self) -> float: ...

    @property
    def deviation(self) -> float: ...

    def trained_on(self, train: Examples) -> Objective:
        """The same, as trained on some examples."""


def as_trained_on(objective: Objective, train: Examples) -> Objective:
    """The objective of a training on these examples; for most tasks the same for all."""
    return objective.trained_on(train) if isinstance(objective, Standardises) else objective


@runtime_checkable
class ReadsStates(Protocol):
    """An objective whose head is the model's own and frozen: it may be given what goes into that head instead of
    logits, and make those it needs."""

    def through(self, readout: Callable[[Tensor], Tensor]) -> Objective:
        """The same, of which ``losses`` and ``answers`` are given states (rows, tokens, features).

        Args:
            readout: makes logits (tokens, vocabulary) of states (tokens, features).
        """
