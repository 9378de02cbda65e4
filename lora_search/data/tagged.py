"""Sentences of words with tags, ready to be split and encoded.

Sources are those of labelled texts, with columns of lists, and CoNLL files. Sentences are stratified by the rarest type
of entity they have: a tag is nothing a sentence has one of.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_search.data.compression import content_of, uncompressed_suffix
from lora_search.data.conll import DOCUMENT, SUFFIXES, read_conll
from lora_search.data.dataset import Dataset
from lora_search.data.duplicates import copies, fold_groups
from lora_search.data.examples import about_rows, sample_of_strata
from lora_search.data.labels import in_order
from lora_search.data.report import DataReport
from lora_search.data.sources import RawExamples, columns_of
from lora_search.data.table import Table
from lora_search.data.tags import scheme_of
from lora_search.data.wording import counted, labels_phrase, rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.metrics.spans import Scheme, part_of, strict_spans
from lora_search.spec.experiment import DataSpec
from lora_search.spec.locations import HubId, resolve
from lora_search.spec.quoting import quoted, quoted_path

NO_ENTITY = "no entity"
_BLANKS = " \t\r\n"  # what stands between words; another blank may be one, and have no token

Words = tuple[str, ...]


@dataclass(frozen=True)
class TagReport(DataReport):
    """As ``DataReport``, whose label counts are those of strata.

    Attributes:
        words: in all sentences.
        entities: type -> how many.
        scheme: of the tags, and
        scheme_found: whether it was looked for.
        windowed: sentences longer than ``max_length`` tokens; None before encoding.
        unseen: words of which the tokenizer makes no token; None before encoding.
        torn_documents: of the file, where they are too few to be groups.
    """

    words: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    scheme: str = ""
    scheme_found: bool = False
    windowed: int | None = None
    unseen: int | None = None
    torn_documents: int = 0

    def _about_size(self) -> list[str]:
        found = labels_phrase(self.entities) if self.entities else "none"
        sentences = [f"{self.examples} sentences of {self.words} words, entities: {found}."]
        if self.scheme_found:
            sentences.append(f"The tags keep to {self.scheme}.")
        if self.sampled_from is not None:
            sentences.append(f"Sampled from {self.sampled_from} sentences, each rarest type of entity in proportion.")
        return [*sentences, *self._about_groups()]

    def _about_lengths(self) -> list[str]:
        sentences = super()._about_lengths()
        if self.windowed:
            longer = counted(self.windowed, "sentence is", "sentences are")
            sentences.append(
                f"{longer} longer than {self.max_length} tokens and read in windows that overlap; each word is answered"
                " where it has most around it."
            )
        return sentences

    def warnings(self) -> tuple[str, ...]:
        """As in ``DataReport``, and words that the model does not see, and documents in several folds."""
        found = list(super().warnings())
        if self.torn_documents:
            found.append(
                f"Warning: {self.torn_documents} documents are too few for the folds: sentences of one document are"
                " trained and evaluated on, which may flatter the scores."
            )
        if self.unseen:
            unseen = counted(self.unseen, "word gives", "words give")
            found.append(f"Warning: {unseen} no token at all; they are answered with O.")
        return tuple(found)


@dataclass(frozen=True, eq=False)
class TaggedDataset(Dataset):
    """n sentences; ``texts`` are their words with spaces between.

    Attributes:
        labels: (n,) strata, indices into ``strata``.
        label_names: the tags, O first.
        tokens: n tuples of words.
        tags: n arrays (words,) of indices into ``label_names``.
        strata: names of the strata.
        scheme: of the tags.
    """

    tokens: tuple[Words, ...] = ()
    tags: tuple[npt.NDArray[np.int64], ...] = ()
    strata: tuple[str, ...] = ()
    scheme: Scheme = "IOB2"

    def label_of(self, example: int) -> str:
        """The stratum of an example."""
        return self.strata[int(self.labels[example])]


@dataclass(frozen=True)
class _Sentences:
    """What was read: one entry per sentence; ``groups`` are the user's, or the documents."""

    tokens: tuple[Words, ...]
    tags: tuple[Words, ...]
    groups: tuple[str, ...] | None
    group_column: str | None
    stored: tuple[str, ...]
    notes: tuple[str, ...]


def load_tagged(spec: DataSpec, seed: int, folds: int = 2) -> TaggedDataset:
    """Read, check and sample the sentences of an experiment.

    Args:
        spec: ``[data]``.
        seed: the experiment's seed; decides which sentences ``max_examples`` takes.
        folds: of every repeat; documents of a CoNLL file are groups where there are so many beside the hold-out.

    Raises:
        DataError: the source cannot be read, or its sentences cannot be used.
    """
    read = _read(spec)
    rows = tuple(range(1, len(read.tokens) + 1))
    scheme = scheme_of(read.tags, rows, spec.scheme)
    entities = [[kind for kind, *_ in strict_spans([part_of(tag) for tag in tags], scheme)] for tags in read.tags]
    if not any(entities):
        raise DataError.about("data.tags", "must mark entities", got="O for every word")
    texts = tuple(" ".join(words) for words in read.tokens)
    raw = RawExamples(texts, None, _strata(entities), read.groups, rows)
    used, sampled_from = raw, None
    if spec.max_examples is not None and spec.max_examples < len(raw):
        sampled_from = len(raw)
        used = sample_of_strata(raw, raw.labels, spec.max_examples, seed)
    group_column, torn_documents = read.group_column, 0
    if spec.group is None and used.groups is not None:
        documents = len(set(used.groups))
        if documents * (1 - spec.holdout) < folds:
            used, group_column = replace(used, groups=None), None
            torn_documents = documents if documents > 1 else 0  # one document is nothing to be torn from
    kept = [row - 1 for row in used.rows]
    entities = [entities[place] for place in kept]
    strata_of = _strata(entities)
    strata = tuple(sorted(set(strata_of)))
    tags = [read.tags[place] for place in kept]
    names = _tag_names(tags, read.stored)
    index, stratum = {name: number for number, name in enumerate(names)}, {name: n for n, name in enumerate(strata)}
    duplicates = copies(used)
    groups = fold_groups(len(used), used.groups, duplicates)
    report = TagReport(
        source=spec.train,
        **about_rows(raw, used, duplicates),
        dropped={},
        sampled_from=sampled_from,
        label_counts=dict(Counter(strata_of)),
        group_column=group_column,
        notes=read.notes,
        words=sum(map(len, tags)),
        entities=dict(sorted(Counter(kind for kinds in entities for kind in kinds).items())),
        scheme=scheme,
        scheme_found=spec.scheme in (None, "auto"),
        torn_documents=torn_documents,
    )
    tokens = tuple(read.tokens[place] for place in kept)
    return TaggedDataset(
        texts=used.texts,
        pairs=None,
        labels=np.array([stratum[name] for name in strata_of], dtype=np.int64),
        label_names=names,
        groups=groups,
        rows=np.array(used.rows, dtype=np.int64),
        report=report,
        fingerprint=_fingerprint(tokens, tags, groups),
        tokens=tokens,
        tags=tuple(np.array([index[tag] for tag in each], dtype=np.int64) for each in tags),
        strata=strata,
        scheme=scheme,
    )


def _read(spec: DataSpec) -> _Sentences:
    table, group_column = _table(spec)
    tokens, tags = (table.columns[spec.tokens or "tokens"], table.columns[spec.tags or "tags"])
    if not tokens:
        raise DataError.about("data.train", "must hold sentences", got=f"none in {quoted_path(spec.train)}")
    mistakes = [
        *_not_lists("data.tokens", spec.tokens or "tokens", tokens),
        *_not_lists("data.tags", spec.tags or "tags", tags),
    ]
    if mistakes:
        raise DataError(mistakes)
    rows = range(1, len(tokens) + 1)
    empty = [row for row, words in zip(rows, tokens, strict=True) if not words]
    uneven = [row for row, words, marks in zip(rows, tokens, tags, strict=True) if len(words) != len(marks)]
    blank = [
        row for row, words in zip(rows, tokens, strict=True) if any(not str(word).strip(_BLANKS) for word in words)
    ]
    unnamed = [row for row, marks in zip(rows, tags, strict=True) if not all(isinstance(mark, str) for mark in marks)]
    odd = [row for row, words in zip(rows, tokens, strict=True) if not all(isinstance(word, str) for word in words)]
    groups = table.columns[group_column] if group_column else None
    missing = [row for row, group in zip(rows, groups or (), strict=False) if group is None or not str(group).strip()]
    found = (
        (empty, "data.tokens", "every sentence must have a word", "none"),
        (odd, "data.tokens", "every word must be a string", "something else"),
        (blank, "data.tokens", "every word must have a character", "blanks"),
        (uneven, "data.tags", "every word must have its tag", "more or fewer tags than words"),
        (unnamed, "data.tags", "must be strings, or numbers with names in the source", "others"),
        (missing, "data.group", "every sentence must have its group", "none"),
    )
    mistakes = [Mistake(rule, key, f"{what} in {rows_phrase(where)}") for where, key, rule, what in found if where]
    if mistakes:
        raise DataError(mistakes)
    return _Sentences(
        tokens=tuple(map(tuple, tokens)),
        tags=tuple(map(tuple, tags)),
        groups=None if groups is None else tuple(map(str, groups)),
        group_column=group_column,
        stored=table.class_names.get(spec.tags or "tags", ()),
        notes=table.notes,
    )


def _table(spec: DataSpec) -> tuple[Table, str | None]:
    """The columns, under the names the experiment gives them, and which of them says the group."""
    place = resolve(spec.train, key="data.train", error=DataError)
    if not isinstance(place, HubId) and place.is_file() and uncompressed_suffix(place) in SUFFIXES:
        if spec.group is not None:
            raise DataError.about("data.group", "must be left out: a CoNLL file has documents", got=quoted(spec.group))
        content, _ = content_of(place)
        table = read_conll(content, place.name, spec.tokens, spec.tags)
        columns = dict(table.columns)
        columns = {spec.tokens or "tokens": columns.pop("tokens"), spec.tags or "tags": columns.pop("tags"), **columns}
        return replace(table, columns=columns), DOCUMENT if DOCUMENT in columns else None
    wanted = {"data.tokens": spec.tokens or "tokens", "data.tags": spec.tags or "tags"}
    if wanted["data.tokens"] == wanted["data.tags"]:
        rule = "must not be the column the model reads (data.tokens)"
        raise DataError.about("data.tags", rule, got=quoted(spec.tags))
    if spec.group is not None:
        wanted["data.group"] = spec.group
    return columns_of(spec, wanted), spec.group


def _not_lists(key: str, column: str, values: Sequence[Any]) -> list[Mistake]:
    wrong = [row for row, value in enumerate(values, start=1) if not isinstance(value, list)]
    if not wrong:
        return []
    kind = type(values[wrong[0] - 1]).__name__
    return [Mistake(f"column {quoted(column)} must hold lists", key, f"{kind} in {rows_phrase(wrong)}")]


def _strata(entities: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The rarest type of each sentence: of those it has, the one that fewest sentences have."""
    having = Counter(kind for kinds in entities for kind in set(kinds))
    return tuple(min(kinds, key=lambda kind: (having[kind], kind)) if kinds else NO_ENTITY for kinds in entities)


def _tag_names(tags: Sequence[Words], stored: Sequence[str]) -> tuple[str, ...]:
    """The tags that occur, and O: as the source has them in order, else O first."""
    occurring = {tag for each in tags for tag in each} | {"O"}
    if stored:
        return in_order(occurring, stored)
    return ("O", *sorted(occurring - {"O"}, key=lambda tag: (tag[2:], tag)))


def _fingerprint(tokens: Sequence[Words], tags: Sequence[Words], groups: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for row in zip(tokens, tags, groups.tolist(), strict=True):
        digest.update(json.dumps(row).encode("ascii") + b"\n")
    return digest.hexdigest()
