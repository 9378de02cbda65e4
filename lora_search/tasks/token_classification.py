"""Token classification: a tag for every word of a sentence, entities as spans of them (named entities, slots)."""

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
from lora_search.data.tagged import TaggedDataset, load_tagged
from lora_search.data.tagged_encoding import UNLABELLED, EncodedSentences, encode_tagged
from lora_search.metrics import ENTITY_METRICS, Metric, scores_of
from lora_search.metrics.entities import COLUMNS
from lora_search.metrics.spans import Part, Span, lenient_spans, part_of, strict_spans
from lora_search.models import TaskHead
from lora_search.spec.experiment import DataSpec
from lora_search.tasks.strata import spread_over_folds
from lora_search.tasks.task import Examples, OnWords, RowTexts, frequency_losses


@dataclass(frozen=True)
class TokenClassification:
    """A head over every token gives a logit per tag; the loss is their cross-entropy, a mean over words."""

    name: str = "token-classification"
    peft_type: str = "TOKEN_CLS"
    metrics: tuple[Metric, ...] = ENTITY_METRICS
    compared: str = "log loss per word"
    predicts_probabilities: bool = False
    purpose: str = "tells {labels} apart"
    pipeline: str = "token-classification"
    reading: str = "[model.config.id2label[tag] for tag in model(**encoded).logits.argmax(-1)[0].tolist()]"
    on_words: OnWords | None = None

    def load(self, spec: DataSpec, seed: int, folds: int) -> Dataset:
        return load_tagged(spec, seed, folds)

    def split(self, dataset: Dataset, *, folds: int, holdout: float, seed: int) -> Splits:
        """Stratified by the rarest type of entity a sentence has, where groups allow it."""
        return spread_over_folds(dataset, noun="sentence", folds=folds, holdout=holdout, seed=seed)

    def encode(self, dataset: Dataset, tokenizer: Any, max_length: int) -> EncodedExamples:
        assert isinstance(dataset, TaggedDataset), "of load"
        return encode_tagged(dataset, tokenizer, max_length)

    def head(self, label_names: Sequence[str]) -> TaskHead:
        return TaskHead(
            task=self.name,
            purpose="tag words",
            auto_class="AutoModelForTokenClassification",
            label_names=tuple(label_names),
            reads_words=True,
        )

    def objective(self, data: EncodedExamples) -> TagObjective:
        assert isinstance(data, EncodedSentences), "of encode"
        return TagObjective(data)

    def texts(self, dataset: Dataset, data: EncodedExamples, examples: Examples) -> RowTexts:
        """The words of every row."""
        assert isinstance(data, EncodedSentences), "of encode"
        rows = data.rows_of(examples)
        return RowTexts(rows, [list(data.words[row]) for row in rows], None)

    def shown(self, data: EncodedExamples, tokenizer: Any) -> str | None:
        """Nothing: all of a text is read."""
        return None


@dataclass(frozen=True, eq=False)
class TagObjective:
    """Cross-entropy over tags, one answer per word; a prediction is what the sentence adds to every count.

    Attributes:
        data: m rows of n sentences.
    """

    data: EncodedSentences

    @property
    def targets(self) -> NDArray[np.int64]:
        """(m, longest row), the tag at the first token of each word."""
        return self.data.targets

    @cached_property
    def units(self) -> Examples:
        """Words that have a token, of each sentence."""
        return np.array([len(words) for words in self.data.seen], dtype=np.int64)

    def rows(self, examples: Examples) -> Examples:
        """The windows of these sentences."""
        return self.data.rows_of(examples)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._nats(logits, targets).sum(1)

    def losses_of_nothing(self, train: Examples) -> NDArray[np.float64]:
        each = self._losses_of_tags(train)
        return np.array([each[tags].sum() for tags in self._seen_tags])

    def guess(self, train: Examples, rows: Examples) -> Tensor:
        shares = torch.from_numpy(-self._losses_of_tags(train)).float()
        return shares.expand(len(rows), self.targets.shape[1], -1)

    def answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The most probable tag and the nats of the right one at every token, float32 (rows, tokens, 2)."""
        return torch.stack([logits.argmax(-1).float(), self._nats(logits, targets)], dim=-1)

    def predictions(self, examples: Examples, answers: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        counts = np.zeros((len(examples), len(COLUMNS)), dtype=np.float32)
        of_rows = iter(zip(self.data.rows_of(examples), answers, strict=True))
        for place, example in enumerate(examples):
            own = [next(of_rows) for _ in range(self.data.first_rows[example], self.data.first_rows[example + 1])]
            found = np.concatenate([answer[self._labelled[row][: len(answer)]] for row, answer in own])
            counts[place] = self._counts(int(example), found)
        return counts

    def scores(self, examples: Examples, predicted: NDArray[np.float32]) -> dict[str, float]:
        return scores_of(ENTITY_METRICS, self.data.labels[examples], predicted)

    @cached_property
    def _seen_tags(self) -> list[NDArray[np.int64]]:
        return [tags[words] for tags, words in zip(self.data.tags, self.data.seen, strict=True)]

    def _losses_of_tags(self, train: Examples) -> NDArray[np.float64]:
        """(tags,), for who knows only how often each occurs among ``train``."""
        known = np.concatenate([self._seen_tags[example] for example in train])
        return frequency_losses(known, len(self.data.label_names))

    def _counts(self, example: int, found: NDArray[Any]) -> list[float]:
        """What a sentence adds to every column, of (tag, nats) of each word that has a token; others are O."""
        right = self.data.tags[example]
        tags = np.full_like(right, self._outside)
        seen = self.data.seen[example]
        tags[seen] = found[:, 0].astype(np.int64)
        strict, lenient = self._spans(tags)
        actual, actual_lenient = self._actual[example]
        return [
            len(strict & actual),
            len(strict),
            len(actual),
            len(lenient & actual_lenient),
            len(lenient),
            len(actual_lenient),
            int((tags[seen] == right[seen]).sum()),
            len(seen),
            float(found[:, 1].sum(dtype=np.float64)),
        ]

    def _spans(self, tags: NDArray[np.int64]) -> tuple[set[Span], set[Span]]:
        parts = [self._parts[tag] for tag in tags]
        return strict_spans(parts, self.data.scheme), lenient_spans(parts)

    @cached_property
    def _parts(self) -> list[Part]:
        return [part_of(name) for name in self.data.label_names]

    @cached_property
    def _labelled(self) -> NDArray[np.bool_]:
        return np.not_equal(self.targets, UNLABELLED)

    @cached_property
    def _outside(self) -> int:
        return self.data.label_names.index("O")

    @cached_property
    def _actual(self) -> list[tuple[set[Span], set[Span]]]:
        return [self._spans(tags) for tags in self.data.tags]

    def _nats(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Negative log probability of the right tag, float32 (rows, tokens); 0 where a token has none."""
        wanted = targets[:, : logits.shape[1]]
        return F.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=UNLABELLED, reduction="none")
