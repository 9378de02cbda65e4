"""Texts, or pairs of them, each with any number of labels: several, one or none.

Labels come as a column of lists, as texts that spell lists or in which something stands between them, or as a column of
0 and 1 for each label. A missing list is a mistake; an empty one, or an empty text, is an example without labels. An
example's labels travel as JSON, as every value of a source is a string.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_search.data.dataset import Dataset, fingerprint_of
from lora_search.data.duplicates import copies, fold_groups, swapped
from lora_search.data.examples import about_rows, check_none_lost, gaps, sample_of_strata, unknown_to_drop
from lora_search.data.labels import in_order, lookalikes, written_as_missing
from lora_search.data.report import DataReport
from lora_search.data.sources import ReadLabels, as_strings, name_of, read_table
from lora_search.data.spelled import is_bracketed, spelled_list
from lora_search.data.table import Table
from lora_search.data.wording import counted, labels_phrase, rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.spec.experiment import DataSpec
from lora_search.spec.quoting import quoted

_KEY = "data.label"
_SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars"}
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")
_RULE = "lists of strings or whole numbers, or texts"


@dataclass(frozen=True)
class LabelSetReport(DataReport):
    """As ``DataReport``, whose label counts are those of strata.

    Attributes:
        having: label -> examples that have it.
        without: examples that have none.
        several: examples that have more than one.
    """

    having: Mapping[str, int] = field(default_factory=dict)
    without: int = 0
    several: int = 0

    @property
    def occurrences(self) -> Mapping[str, int]:
        return self.having

    def _about_size(self) -> list[str]:
        each = sum(self.having.values()) / self.examples
        sentences = [
            f"{self.examples} examples of {len(self.having)} labels, {each:.2g} each on average:"
            f" {labels_phrase(self.having)}; {self.without} without any."
        ]
        if self.dropped:
            sentences.append(f"Labels left out: {labels_phrase(self.dropped)}.")
        if self.sampled_from is not None:
            sentences.append(f"Sampled from {self.sampled_from} examples, each rarest label in proportion.")
        return [*sentences, *self._about_groups()]

    def warnings(self) -> tuple[str, ...]:
        """As in ``DataReport``, and labels that never come together."""
        found = list(super().warnings())
        if not self.several:
            found.append(
                "Warning: no example has more than one label; where none ever has, that is text-classification."
            )
        return tuple(found)


@dataclass(frozen=True, eq=False)
class LabelSetDataset(Dataset):
    """n texts or text pairs. ``answers`` are uint8 (n, labels), 1 for those an example has; ``labels`` its rarest one,
    the number of all labels where it has none."""

    def label_of(self, example: int) -> str:
        """The labels of an example."""
        assert self.answers is not None, "of load_label_sets"
        return ", ".join(self.label_names[label] for label in np.flatnonzero(self.answers[example])) or "none"


def load_label_sets(spec: DataSpec, seed: int) -> LabelSetDataset:
    """Read, check and sample the examples of an experiment.

    Args:
        spec: ``[data]``.
        seed: the experiment's seed; decides which examples ``max_examples`` takes.

    Raises:
        DataError: the source cannot be read, or its rows cannot be used; every mistake found, with its rows.
    """
    raw = read_table(spec, label_sets)
    several_columns = len(spec.label_columns) > 1
    # which of several columns is not filled in was said when they were read
    every = [json.loads(labels) if labels else [] for labels in raw.labels]
    counts = Counter(label for labels in every for label in labels)
    every = [[label for label in labels if label not in spec.drop_labels] for labels in every]
    names = [name for name in raw.label_names if name not in spec.drop_labels]
    if not several_columns:
        names = list(in_order((label for labels in every for label in labels), names))
    mistakes = [*unknown_to_drop(spec, {**dict.fromkeys(raw.label_names, 0), **counts}), *gaps(raw, spec, raw.labels)]
    if len(names) < 2:
        got = ", ".join(map(quoted, names)) or "none"
        mistakes.append(Mistake("must have two labels or more", _KEY, got))
    mistakes += _no_question(names, counts, len(raw))
    if mistakes:
        raise DataError(mistakes)
    used, sampled_from = raw, None
    if spec.max_examples is not None and spec.max_examples < len(raw):
        sampled_from = len(raw)
        strata = [str(label) for label in _rarest(_members(every, names))]
        used = sample_of_strata(raw, strata, spec.max_examples, seed)
    kept = [every[row - 1] for row in used.rows]
    members = _members(kept, names)
    having = members.sum(axis=0)
    check_none_lost(len(used), len(raw), {name: counts[name] for name, n in zip(names, having, strict=True) if not n})
    examples_of = dict(zip(names, having.tolist(), strict=True))
    if mistakes := _no_question(names, examples_of, len(used)):
        raise DataError(mistakes)
    duplicates = copies(used)
    swaps = swapped(used)
    groups = fold_groups(len(used), used.groups, (*duplicates, *swaps))
    labels = _rarest(members)
    report = LabelSetReport(
        source=spec.train,
        **about_rows(raw, used, duplicates, [row.tobytes() for row in members], swaps),
        dropped={label: counts[label] for label in spec.drop_labels},
        sampled_from=sampled_from,
        label_counts=dict(Counter([*names, "none"][label] for label in labels)),
        group_column=spec.group,
        lookalikes=lookalikes(examples_of),
        perhaps_missing=written_as_missing(examples_of),
        notes=raw.notes,
        having=examples_of,
        without=int((members.sum(axis=1) == 0).sum()),
        several=int((members.sum(axis=1) > 1).sum()),
    )
    return LabelSetDataset(
        texts=used.texts,
        pairs=used.pairs,
        labels=labels,
        label_names=tuple(names),
        groups=groups,
        rows=np.array(used.rows, dtype=np.int64),
        report=report,
        fingerprint=fingerprint_of(used, groups),
        answers=members,
    )


def label_sets(spec: DataSpec, table: Table) -> ReadLabels:
    """The labels of each row, as JSON, however the source has them."""
    if len(spec.label_columns) > 1:
        return _of_columns(spec, table)
    column = spec.label_columns[0]
    values = table.columns[column]
    texts = [value.strip() for value in values if isinstance(value, str)]
    separator, notes = spec.label_separator, []
    if separator is not None and not texts:
        return _refused(values, f"must be left out where column {quoted(column)} holds lists", separator)
    # as pandas writes a column of lists, arrays or sets
    bracketed = separator is None and any(texts) and all(is_bracketed(text) for text in texts if text)
    if bracketed:
        notes.append(f"The texts of column {quoted(column)} are read as the lists they spell.")
    elif separator is None:
        found = [sign for sign in _SEPARATORS if any(sign in text for text in texts)]
        if len(found) > 1:
            signs = " and ".join(_SEPARATORS[sign] for sign in found)
            rule = f"must be given for column {quoted(column)}"
            return _refused(values, rule, None, got=f"{signs} in it")
        separator = found[0] if found else None
        if separator is not None:
            notes.append(f"The labels of column {quoted(column)} are separated by {_SEPARATORS[separator]}.")

    lists: list[Any] = []

    def convert(value: Any) -> str | None:
        if isinstance(value, str):
            value = spelled_list(value.strip() or "[]") if bracketed else _parts(value, separator)
        lists.append(value)
        return _as_json(value)

    strings, mistakes = as_strings(_KEY, column, values, convert, _RULE)
    mistakes = mistakes or _multi_hot(column, lists)
    return ReadLabels(strings, mistakes, table.class_names.get(column, ()), tuple(notes))


def _of_columns(spec: DataSpec, table: Table) -> ReadLabels:
    """A column of 0 and 1 for each label."""
    mistakes: list[Mistake] = []
    flags: list[tuple[str, ...]] = []
    if spec.label_separator is not None:
        rule = "must be left out where each label has a column"
        mistakes.append(Mistake(rule, "data.label_separator", quoted(spec.label_separator)))
    for place, column in enumerate(spec.label_columns):
        key, values = f"data.label[{place}]", table.columns[column]
        found, refused = as_strings(key, column, values, _flag, "0 or 1")
        mistakes.extend(refused)
        missing = [row for row, flag in enumerate(found, start=1) if not flag]
        if missing and not refused:
            rule = f"column {quoted(column)} must be filled in"
            mistakes.append(Mistake(rule, key, f"nothing in {rows_phrase(missing)}"))
        flags.append(found)
    rows = zip(*flags, strict=True)
    labels = tuple(
        json.dumps([column for column, flag in zip(spec.label_columns, row, strict=True) if flag == "1"])
        for row in rows
    )
    return ReadLabels(labels, tuple(mistakes), spec.label_columns)


def _flag(value: Any) -> str | None:
    name = name_of(value)
    if isinstance(value, bool):
        return str(int(value))
    plain = None if name is None else name.strip().casefold()
    return "1" if plain in _YES else "0" if plain in _NO else None


def _refused(values: Sequence[Any], rule: str, separator: str | None, *, got: str | None = None) -> ReadLabels:
    given = quoted(separator) if separator is not None else got
    return ReadLabels(("",) * len(values), (Mistake(rule, "data.label_separator", given),))


def _parts(text: str, separator: str | None) -> list[str]:
    parts = (
        text.split(separator) if separator is not None and separator.strip() else text.split() if separator else [text]
    )
    return [part.strip() for part in parts if part.strip()]


def _as_json(value: Any) -> str | None:
    """A list of labels, each once; None if it is none."""
    if not isinstance(value, list | tuple):
        return None
    names = [name_of(item) for item in value]
    if not all(isinstance(name, str) and name.strip() for name in names):
        return None
    return json.dumps(list(dict.fromkeys(names)))


def _multi_hot(column: str, lists: Sequence[Sequence[Any]]) -> tuple[Mistake, ...]:
    """A mistake if lists are a 0 or 1 for each label, and no labels."""
    filled = [values for values in lists if values]
    length = len(filled[0]) if filled else 0
    if length < 2 or any(len(values) != length or not all(map(_flag, values)) for values in filled):
        return ()
    repeated = next((values for values in filled if len(set(map(_flag, values))) < length), None)
    if repeated is None:
        return ()
    rule = f"column {quoted(column)} must hold the names of labels"
    got = f"lists of {length} values that are 0 or 1, such as {quoted(json.dumps(list(repeated)))}"
    hint = f"give each label a column of its own, 0 or 1: label = [...] of {length} columns"
    return (Mistake(rule, _KEY, got, hint=hint),)


def _members(every: Sequence[Iterable[str]], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(n, labels), 1 for those an example has."""
    place = {name: number for number, name in enumerate(names)}
    members = np.zeros((len(every), len(names)), dtype=np.uint8)
    for row, labels in enumerate(every):
        members[row, [place[label] for label in labels]] = 1
    return members


def _rarest(members: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(n,), of the labels an example has the one that fewest have; the number of labels where it has none."""
    having = members.sum(axis=0, dtype=np.int64)
    rarity = np.where(members > 0, having, len(members) + 1)
    rarest = rarity.argmin(axis=1)
    return np.asarray(np.where(members.any(axis=1), rarest, members.shape[1]), dtype=np.int64)


def _no_question(names: Sequence[str], counts: Mapping[str, int], examples: int) -> list[Mistake]:
    """Labels that every example has, or none."""
    return [
        Mistake(
            "must have labels that some examples have and others have not",
            _KEY,
            f"{quoted(name)} in {'none' if not counts.get(name) else 'all'} of {counted(examples, 'example')}",
            hint="name it in data.drop_labels" if counts.get(name) else "",
        )
        for name in names
        if counts.get(name, 0) in (0, examples)
    ]
