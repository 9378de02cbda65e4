"""Texts to token ids, without padding: each example keeps its own length; batches are padded where they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lora_search.data.dataset import Dataset
from lora_search.data.duplicates import encoded_copies, fold_groups, text_key
from lora_search.data.report import DataReport
from lora_search.data.wording import rows_phrase
from lora_search.errors import DataError
from lora_search.spec.fields import SHORTEST_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# bounds the memory of the tokenizer's by-products, which are many times the size of the ids
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """n encoded examples.

    Attributes:
        input_ids: n arrays (T_i,) of token ids, special tokens included, padding not.
        token_type_ids: n arrays (T_i,), or None where the tokenizer makes none.
        labels: (n,) indices into ``label_names``.
        label_names: the labels in the order of their classes.
        lengths: (n,) tokens of each example, T_i.
        groups: (n,) group numbers, for ``Splits.make``: the dataset's, joined where examples are the same tokens.
        report: the dataset's report, with what encoding found filled in.
        fingerprint: sha256 of all that training sees: ids, token types, labels and their names, groups, answers.
        answers: (n, ...) what is right of each example, where a label says not all.
    """

    input_ids: tuple[npt.NDArray[np.int64], ...]
    token_type_ids: tuple[npt.NDArray[np.int64], ...] | None
    labels: npt.NDArray[np.int64]
    label_names: tuple[str, ...]
    lengths: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    report: DataReport
    fingerprint: str
    answers: npt.NDArray[Any] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def truth(self) -> npt.NDArray[Any]:
        """(n, ...), what metrics take for the truth."""
        return self.labels if self.answers is None else self.answers

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """(n,) tokens of the longest row of each example, which here is its only one."""
        return self.lengths

    @property
    def examples_of_rows(self) -> npt.NDArray[np.int64]:
        """(rows,), the example each row is of."""
        return np.arange(len(self.input_ids), dtype=np.int64)


def encode(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedExamples:
    """Tokenize every example, special tokens included.

    Args:
        dataset: n examples.
        tokenizer: of the base model.
        max_length: most tokens per example, special tokens included; the tokenizer's own limit lowers it. In a pair the
            longer text is cut first.

    Raises:
        DataError: examples of which the tokenizer makes no token, with their rows; or the same tokens of all.
    """
    limit = length_limit(tokenizer, max_length)
    input_ids: list[npt.NDArray[np.int64]] = []
    token_type_ids: list[npt.NDArray[np.int64]] = []
    truncated = 0
    for texts, pairs in _chunks(dataset):
        encoded = tokenizer(texts, pairs, truncation=True, max_length=limit, padding=False, return_attention_mask=False)
        input_ids += [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        token_type_ids += [np.array(ids, dtype=np.int64) for ids in encoded.get("token_type_ids", ())]
        truncated += _count_truncated(tokenizer, texts, pairs, encoded["input_ids"], limit)
    lengths = np.array([len(ids) for ids in input_ids], dtype=np.int64)
    _require_tokens(dataset, lengths)
    types = tuple(token_type_ids) or None
    same = encoded_copies(input_ids, types)
    report = replace(
        dataset.report,
        max_length=limit,
        truncated=truncated,
        asked_length=max_length if limit < max_length else None,
        alike=_count_alike(dataset, same),
        blank=_count_blank(tokenizer, input_ids),
    )
    if same and len(same[0]) == len(dataset):
        raise DataError.about("data.text", f"must differ once encoded, {report.alike_phrase()}")
    groups = fold_groups(len(dataset), dataset.groups.tolist(), same)
    return EncodedExamples(
        input_ids=tuple(input_ids),
        token_type_ids=types,
        labels=dataset.labels,
        label_names=dataset.label_names,
        lengths=lengths,
        groups=groups,
        report=report,
        fingerprint=_fingerprint(dataset, groups, input_ids, types),
        answers=dataset.answers,
    )


def length_limit(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """The most tokens of an example: ``max_length``, or what the tokenizer allows where that is less.

    0, -1 and whatever else is less than an experiment may ask for is written where nobody thought of a limit.
    """
    own = tokenizer.model_max_length
    return int(min(max_length, own)) if own >= SHORTEST_LENGTH else max_length


def _chunks(dataset: Dataset) -> Iterator[tuple[list[str], list[str] | None]]:
    for start in range(0, len(dataset), _CHUNK):
        stop = start + _CHUNK
        pairs = None if dataset.pairs is None else list(dataset.pairs[start:stop])
        yield list(dataset.texts[start:stop]), pairs


def _count_truncated(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str] | None, ids: Any, limit: int
) -> int:
    """How many were cut: those at the limit are encoded again without one. Works for slow tokenizers too."""
    full = [position for position, row in enumerate(ids) if len(row) >= limit]
    if not full:
        return 0
    whole = tokenizer(
        [texts[position] for position in full],
        None if pairs is None else [pairs[position] for position in full],
        truncation=False,
        padding=False,
        return_attention_mask=False,
        verbose=False,
    )
    return sum(len(row) > limit for row in whole["input_ids"])


def _count_alike(dataset: Dataset, same: Sequence[Sequence[int]]) -> int:
    """Examples with the tokens of one that has another text."""
    pairs = dataset.pairs or (None,) * len(dataset)

    def texts(positions: Sequence[int]) -> int:
        return len({text_key(dataset.texts[position], pairs[position]) for position in positions})

    return sum(len(positions) for positions in same if texts(positions) > 1)


def _count_blank(tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[npt.NDArray[np.int64]]) -> int:
    """Examples of special tokens only; the unknown token is one of them."""
    special = np.isin(np.concatenate(input_ids), np.array(tokenizer.all_special_ids, dtype=np.int64))
    starts = np.cumsum([0, *(len(ids) for ids in input_ids[:-1])])
    return int(np.logical_and.reduceat(special, starts).sum())


def _require_tokens(dataset: Dataset, lengths: npt.NDArray[np.int64]) -> None:
    empty = dataset.rows[lengths == 0].tolist()
    if empty:
        raise DataError.about(
            "data.text", "must give at least one token", got=f"none from the text in {rows_phrase(empty)}"
        )


def _fingerprint(
    dataset: Dataset,
    groups: npt.NDArray[np.int64],
    input_ids: list[npt.NDArray[np.int64]],
    token_type_ids: tuple[npt.NDArray[np.int64], ...] | None,
) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([len(dataset), dataset.label_names, token_type_ids is not None]).encode("ascii"))
    for row in (dataset.labels, groups, np.array([len(ids) for ids in input_ids])):
        digest.update(row.astype("<i8").tobytes())
    for row in (*input_ids, *(token_type_ids or ())):
        digest.update(row.astype("<i8").tobytes())
    if dataset.answers is not None:
        digest.update(dataset.answers.astype("<f8").tobytes())
    return digest.hexdigest()
