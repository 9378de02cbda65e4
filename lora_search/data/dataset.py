"""One labelled dataset, ready to be split and encoded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_search.data.duplicates import copies, fold_groups, swapped
from lora_search.data.examples import about_rows, clean, sample
from lora_search.data.labels import in_order, lookalikes, written_as_missing
from lora_search.data.report import DataReport
from lora_search.data.sources import RawExamples, read_table
from lora_search.spec.experiment import DataSpec


@dataclass(frozen=True, eq=False)
class Dataset:
    """n labelled texts or text pairs.

    Attributes:
        texts: n texts, none empty.
        pairs: n second texts, or None.
        labels: (n,) indices into ``label_names``.
        label_names: the labels in the order of their classes: the source's, else by number, else as text.
        groups: (n,) group numbers; no split may tear a group apart. The user's groups, joined where they share a text;
            without either, each example is its own.
        rows: (n,) data row numbers in the source, from 1.
        report: what was read, dropped, sampled and found.
        fingerprint: sha256 of texts, labels and groups.
        answers: (n, ...) what is right of each example, where a label says not all; ``labels`` are then what it is
            stratified by, and ``label_names`` what the model answers with.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: npt.NDArray[np.int64]
    label_names: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    report: DataReport
    fingerprint: str
    answers: npt.NDArray[Any] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.texts)

    def label_of(self, example: int) -> str:
        """What an example is stratified by, in words: its label."""
        return self.label_names[int(self.labels[example])]


def load_dataset(spec: DataSpec, seed: int) -> Dataset:
    """Read, clean and sample the data of an experiment.

    Args:
        spec: ``[data]``.
        seed: the experiment's seed; decides which examples ``max_examples`` takes.

    Raises:
        DataError: the source cannot be read, or its rows cannot be used; every mistake found, with its rows.
    """
    raw = read_table(spec)
    cleaned = clean(raw, spec)
    sampled = spec.max_examples is not None and spec.max_examples < len(cleaned)
    used = sample(cleaned, spec.max_examples, seed) if sampled and spec.max_examples is not None else cleaned
    duplicates = copies(used)
    label_names = in_order(used.labels, raw.label_names)
    index = {name: number for number, name in enumerate(label_names)}
    swaps = swapped(used)
    groups = fold_groups(len(used), used.groups, (*duplicates, *swaps))
    return Dataset(
        texts=used.texts,
        pairs=used.pairs,
        labels=np.array([index[label] for label in used.labels], dtype=np.int64),
        label_names=label_names,
        groups=groups,
        rows=np.array(used.rows, dtype=np.int64),
        report=_report(spec, raw, len(cleaned) if sampled else None, used, duplicates, swaps),
        fingerprint=fingerprint_of(used, groups),
    )


def _report(
    spec: DataSpec,
    raw: RawExamples,
    sampled_from: int | None,
    used: RawExamples,
    duplicates: tuple[tuple[int, ...], ...],
    swaps: tuple[tuple[int, ...], ...],
) -> DataReport:
    read, kept = Counter(raw.labels), Counter(used.labels)
    return DataReport(
        source=spec.train,
        **about_rows(raw, used, duplicates, used.labels, swaps),
        dropped={label: read[label] for label in spec.drop_labels},
        sampled_from=sampled_from,
        label_counts={label: kept[label] for label in in_order(kept, raw.label_names)},
        lookalikes=lookalikes(kept),
        perhaps_missing=written_as_missing(kept),
        notes=raw.notes,
        group_column=spec.group,
    )


def fingerprint_of(examples: RawExamples, groups: npt.NDArray[np.int64]) -> str:
    """Of what a result depends on: not of the row numbers, which a source may shift without changing an example."""
    digest = hashlib.sha256()
    pairs = examples.pairs or (None,) * len(examples)
    for row in zip(examples.texts, pairs, examples.labels, groups.tolist(), strict=True):
        digest.update(json.dumps(row).encode("ascii") + b"\n")
    return digest.hexdigest()
