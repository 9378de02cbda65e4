"""Words with tags to token ids with labels, without padding.

The first token of a word carries its label, the others none. Which token is of which word the tokenizer says itself
(``word_ids``). A sentence is one row of the model's input, or several windows where it is too long for one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lora_search.data.encoding import EncodedExamples, length_limit
from lora_search.data.tagged import TaggedDataset, TagReport
from lora_search.data.windows import windows
from lora_search.errors import DataError, ModelError
from lora_search.metrics.spans import Scheme

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNLABELLED = -100
"""The label of a token that has none, as torch and transformers have it."""

_CHUNK = 1024
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EncodedSentences(EncodedExamples):
    """n sentences in m rows; ``input_ids``, ``token_type_ids`` and ``lengths`` are of rows.

    Attributes:
        labels, groups: (n,) strata and groups of the sentences.
        label_names: the tags.
        targets: (m, longest row) index of the tag at the first token of each word that the row answers for,
            ``UNLABELLED`` elsewhere.
        first_rows: (n + 1,), rows ``first_rows[i]`` to before ``first_rows[i + 1]`` are of sentence i.
        words: m tuples, the words of each row as the tokenizer was given them.
        tags: n arrays, the tag of each word of a sentence.
        seen: n arrays, the words of a sentence that have a token, in order: those that targets are of.
        scheme: of the tags.
    """

    targets: Indices
    first_rows: Indices
    words: tuple[tuple[str, ...], ...]
    tags: tuple[Indices, ...]
    seen: tuple[Indices, ...]
    scheme: Scheme

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def widths(self) -> Indices:
        return np.asarray(np.maximum.reduceat(self.lengths, self.first_rows[:-1]), dtype=np.int64)

    @property
    def examples_of_rows(self) -> Indices:
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.first_rows))

    def rows_of(self, examples: Indices) -> Indices:
        """The rows of some sentences, in order."""
        if not len(examples):
            return np.empty(0, dtype=np.int64)
        return np.concatenate([np.arange(self.first_rows[one], self.first_rows[one + 1]) for one in examples])


@dataclass(frozen=True)
class _Row:
    """One row before it is encoded."""

    sentence: int
    words: tuple[str, ...]
    start: int
    first: int
    last: int


def encode_tagged(dataset: TaggedDataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedSentences:
    """Tokenize every sentence, special tokens included.

    Args:
        dataset: n sentences.
        tokenizer: of the base model; one that says which token is of which word.
        max_length: most tokens per row, special tokens included; the tokenizer's own limit lowers it. Longer sentences
            become windows.

    Raises:
        ModelError: the tokenizer does not say which token is of which word.
        DataError: ``max_length`` leaves no room beside the special tokens.
    """
    if not tokenizer.is_fast:
        rule = "must have a tokenizer that tells words apart (tokenizer.json) for token classification"
        raise ModelError.about("model.base", rule, got=type(tokenizer).__name__)
    limit = length_limit(tokenizer, max_length)
    special = len(tokenizer("", padding=False)["input_ids"])
    if limit - special < 1:
        rule = f"must have room for a word beside {special} special tokens"
        raise DataError.about("data.max_length", rule, got=limit)
    space = space_before(tokenizer)
    tokens = [tuple(space + word for word in words) for words in dataset.tokens]
    rows = _rows(tokens, _pieces(tokens, tokenizer), limit - special)
    input_ids: list[Indices] = []
    types: list[Indices] = []
    places: list[list[tuple[int, int]]] = []  # (token, word of the sentence) of what a row answers for
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        encoded = _tokenized(tokenizer, [row.words for row in part], truncation=True, max_length=limit)
        input_ids += [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        types += [np.array(ids, dtype=np.int64) for ids in encoded.get("token_type_ids", ())]
        places += [_answered(row, encoded.word_ids(number)) for number, row in enumerate(part)]
    return _encoded(dataset, rows, input_ids, types, places, limit, max_length)


def _encoded(
    dataset: TaggedDataset,
    rows: Sequence[_Row],
    input_ids: list[Indices],
    types: list[Indices],
    places: list[list[tuple[int, int]]],
    limit: int,
    asked: int,
) -> EncodedSentences:
    lengths = np.array([len(ids) for ids in input_ids], dtype=np.int64)
    targets = np.full((len(rows), int(lengths.max())), UNLABELLED, dtype=np.int64)
    seen: list[list[int]] = [[] for _ in dataset.tokens]
    for number, (row, answered) in enumerate(zip(rows, places, strict=True)):
        for token, word in answered:
            targets[number, token] = dataset.tags[row.sentence][word]
            seen[row.sentence].append(word)
    owners = np.array([row.sentence for row in rows], dtype=np.int64)
    counts = np.bincount(owners, minlength=len(dataset))
    report = dataset.report
    assert isinstance(report, TagReport), "made by load_tagged"
    report = replace(
        report,
        max_length=limit,
        truncated=0,
        asked_length=asked if limit < asked else None,
        windowed=int((counts > 1).sum()),
        unseen=sum(map(len, dataset.tokens)) - sum(map(len, seen)),
    )
    digest = hashlib.sha256(dataset.fingerprint.encode("ascii"))
    for array in (targets, owners, lengths, *input_ids, *types):
        digest.update(array.astype("<i8").tobytes())
    digest.update("\n".join(dataset.label_names).encode())
    return EncodedSentences(
        input_ids=tuple(input_ids),
        token_type_ids=tuple(types) or None,
        labels=dataset.labels,
        label_names=dataset.label_names,
        lengths=lengths,
        groups=dataset.groups,
        report=report,
        fingerprint=digest.hexdigest(),
        targets=targets,
        first_rows=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        words=tuple(row.words for row in rows),
        tags=dataset.tags,
        seen=tuple(np.array(words, dtype=np.int64) for words in seen),
        scheme=dataset.scheme,
    )


def space_before(tokenizer: PreTrainedTokenizerBase) -> str:
    """What words need in front to become the tokens they are inside a text: a space with byte-level tokenizers that add
    none (``add_prefix_space``), else nothing."""

    def last_two(words: list[str]) -> list[int]:
        encoded = _tokenized(tokenizer, [words], add_special_tokens=False)
        return [token for token, word in zip(encoded["input_ids"][0], encoded.word_ids(0), strict=True) if word]

    inside = list(tokenizer("we we we", add_special_tokens=False)["input_ids"])

    def same(words: list[str]) -> bool:
        found = last_two(words)
        return inside[-len(found) :] == found

    return " " if not same(["we"] * 3) and same([" we"] * 3) else ""


def _pieces(sentences: Sequence[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of each word of each sentence."""
    pieces: list[list[int]] = []
    for start in range(0, len(sentences), _CHUNK):
        part = sentences[start : start + _CHUNK]
        encoded = _tokenized(tokenizer, part, add_special_tokens=False, truncation=False, verbose=False)
        for number, words in enumerate(part):
            of = np.array([word for word in encoded.word_ids(number) if word is not None], dtype=np.int64)
            pieces.append(np.bincount(of, minlength=len(words)).tolist())
    return pieces


def _rows(sentences: Sequence[tuple[str, ...]], pieces: Sequence[Sequence[int]], room: int) -> list[_Row]:
    return [
        _Row(number, words[window.start : window.stop], window.start, window.first, window.last)
        for number, (words, each) in enumerate(zip(sentences, pieces, strict=True))
        for window in windows(each, room)
    ]


def _answered(row: _Row, words: Sequence[int | None]) -> list[tuple[int, int]]:
    """The first token of each word that a row answers for, and which word of its sentence that is."""
    first: dict[int, int] = {}
    for token, word in enumerate(words):
        if word is not None:
            first.setdefault(word + row.start, token)
    return [(token, word) for word, token in first.items() if row.first <= word < row.last]


def _tokenized(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], **arguments: Any) -> Any:
    return tokenizer(
        [list(words) for words in sentences],
        is_split_into_words=True,
        padding=False,
        return_attention_mask=False,
        **arguments,
    )
