"""Causal language models: going on with a text (supervised fine-tuning), each trained token from those before it."""

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
from lora_search.data.chat import ChatDataset, load_chat
from lora_search.data.chat_encoding import UNTRAINED, EncodedExchanges, encode_chat
from lora_search.metrics import COMPLETION_METRICS, Metric, scores_of
from lora_search.metrics.completions import COLUMNS
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec
from lora_search.tasks.task import Examples, OnWords, RowTexts, frequency_losses
from lora_search.tasks.vocabulary import Readout, token_answers, token_nats


@dataclass(frozen=True)
class CausalLm:
    """The model's own head gives the logits of the next token; the loss is their cross-entropy, a mean over the trained
    tokens of the batch."""

    name: str = "causal-lm"
    peft_type: str = "CAUSAL_LM"
    metrics: tuple[Metric, ...] = COMPLETION_METRICS
    compared: str = "loss per token"
    predicts_probabilities: bool = False
    purpose: str = "was trained to go on with texts"
    pipeline: str = "text-generation"
    reading: str = 'tokenizer.decode(model.generate(**encoded, max_new_tokens=64)[0, encoded["input_ids"].shape[1] :])'
    on_words: OnWords | None = None

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        return load_chat(spec, seed)

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """All examples are of one stratum."""
        return Splits.make(
            dataset.labels, dataset.groups, folds=folds, holdout=holdout, seed=seed, label_names=dataset.label_names
        )

    def encode(self, dataset: Dataset, tokenizer: Any, max_length: int) -> EncodedExamples:
        assert isinstance(dataset, ChatDataset), "of load"
        return encode_chat(dataset, tokenizer, max_length)

    def head(self, label_names: Sequence[str]) -> TaskHead:
        """The base's own, whatever the labels."""
        return TaskHead(task=self.name, purpose="go on with a text", auto_class="AutoModelForCausalLM", frozen=True)

    def objective(self, data: EncodedExamples) -> CompletionObjective:
        assert isinstance(data, EncodedExchanges), "of encode"
        return CompletionObjective(data)

    def texts(self, dataset: Dataset, data: EncodedExamples, examples: Examples) -> RowTexts:
        """What the tokenizer was given: conversations as the chat template writes them."""
        assert isinstance(data, EncodedExchanges), "of encode"
        return RowTexts(examples, [data.texts[example] for example in examples], None)

    def shown(self, data: EncodedExamples, tokenizer: Any) -> str | None:
        """One example, what is trained of it marked."""
        assert isinstance(data, EncodedExchanges), "of encode"
        return f"one example as the model reads it, what is trained between ⟦ and ⟧:\n{data.shown(tokenizer)}"


def _logits_themselves(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True, eq=False)
class CompletionObjective:
    """Cross-entropy over the vocabulary, one answer per trained token; a prediction is what an example's tokens add up
    to.

    Attributes:
        data: n exchanges, a row each.
        readout: makes logits of what ``losses`` and ``answers`` are given; by default that are logits.
    """

    data: EncodedExchanges
    readout: Readout = _logits_themselves

    @property
    def targets(self) -> NDArray[Any]:
        """int32 (n, longest), the next token where it is trained."""
        return self.data.targets

    @cached_property
    def units(self) -> Examples:
        """Trained tokens of each example."""
        return np.asarray((self.targets != UNTRAINED).sum(axis=1), dtype=np.int64)

    def through(self, readout: Readout) -> CompletionObjective:
        """The same, given states before the head instead of logits."""
        return replace(self, readout=readout)

    def rows(self, examples: Examples) -> Examples:
        """One each."""
        return examples

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        wanted, rows, states = self._trained(logits, targets)
        return _sums(token_nats(states, wanted, self.readout), rows, len(logits))

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        """As of every objective; a base that was trained before loses less from the beginning."""
        known = self.targets[train]
        each = frequency_losses(known[known != UNTRAINED], int(self.targets.max()) + 1)
        nats = np.where(self.targets != UNTRAINED, each[np.maximum(self.targets, 0)], 0.0)
        return np.asarray(nats.sum(axis=1))

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats, tokens and right tokens, float32 (rows, 3)."""
        wanted, rows, states = self._trained(logits, targets)
        nats, right = token_answers(states, wanted, self.readout)
        return torch.stack([_sums(each, rows, len(logits)) for each in (nats, torch.ones_like(nats), right)], dim=1)

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return np.array(answers, dtype=np.float32).reshape(len(examples), len(COLUMNS))

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        return scores_of(COMPLETION_METRICS, self.data.labels[examples], predicted)

    def _trained(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the trained tokens: their ids, the rows they are of, and what the model answers there (tokens, ...)."""
        wanted = targets[:, : logits.shape[1]]
        rows, places = (wanted != UNTRAINED).nonzero(as_tuple=True)
        return wanted[rows, places].long(), rows, logits[rows, places]


def _sums(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum of the values of each row, (count,)."""
    return torch.zeros(count, device=values.device).index_add(0, rows, values)
