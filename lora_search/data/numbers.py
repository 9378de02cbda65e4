"""Texts, or pairs of them, labelled with numbers.

Sources are those of labelled texts. Examples are stratified by how great their number is: in each fold every tenth of
the range of ranks has its share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lora_search.data.dataset import Dataset, fingerprint_of
from lora_search.data.duplicates import copies, fold_groups, swapped
from lora_search.data.examples import about_rows, gaps, sample_by
from lora_search.data.report import DataReport
from lora_search.data.sources import number_labels, read_table
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec
from lora_search.spec.quoting import quoted

_BINS = 10
_GREATEST = 1e30
"""Past it a squared error is no float32."""
_LEAST_VARIATION = 500.0
"""A label may be so many times its standard deviation: float32, in which models answer, still tells a ten-thousandth of
that apart."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NumberReport(DataReport):
    """As ``DataReport``, whose label counts are those of strata.

    Attributes:
        column: of the numbers.
        lowest, highest, mean, deviation: of them; ``deviation`` is their standard deviation.
    """

    column: str = ""
    lowest: float = 0.0
    highest: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0

    def _about_size(self) -> list[str]:
        sentences = [
            f"{self.examples} examples, {self.column} from {self.lowest:.6g} to {self.highest:.6g}, mean"
            f" {self.mean:.4g}, standard deviation {self.deviation:.4g}."
        ]
        if self.sampled_from is not None:
            sentences.append(f"Sampled from {self.sampled_from} examples, small and great numbers in proportion.")
        return [*sentences, *self._about_groups()]


@dataclass(frozen=True, eq=False)
class NumberDataset(Dataset):
    """n texts or text pairs with a number each, ``answers``; ``labels`` are strata, the only name is the column's."""

    def label_of(self, example: int) -> str:
        """The number of an example."""
        assert self.answers is not None, "of load_numbers"
        return f"{self.answers[example]:.6g}"


def load_numbers(spec: DataSpec, seed: int) -> NumberDataset:
    """Read, check and sample the examples of an experiment.

    Args:
        spec: ``[data]``.
        seed: the experiment's seed; decides which examples ``max_examples`` takes.

    Raises:
        DataError: the source cannot be read, or its rows cannot be used; every mistake found, with its rows.
    """
    raw = read_table(spec, number_labels)
    column = spec.label_columns[0]
    if mistakes := gaps(raw, spec, raw.labels):
        raise DataError(mistakes)
    every = np.array([float(label) for label in raw.labels])
    _check(every, column)
    used, sampled_from = raw, None
    if spec.max_examples is not None and spec.max_examples < len(raw):
        sampled_from = len(raw)
        strata = rank_strata(every, min(_BINS, spec.max_examples))
        used = sample_by(raw, list(map(str, strata)), spec.max_examples, seed)
    values = np.array([float(label) for label in used.labels])
    if sampled_from is not None:
        _check(values, column)
    labels = rank_strata(values, _BINS)
    duplicates = copies(used)
    swaps = swapped(used)
    groups = fold_groups(len(used), used.groups, (*duplicates, *swaps))
    report = NumberReport(
        source=spec.train,
        **about_rows(raw, used, duplicates, values.tolist(), swaps),
        dropped={},
        sampled_from=sampled_from,
        label_counts=dict(Counter(f"tenth {label}" for label in sorted(labels.tolist()))),
        group_column=spec.group,
        notes=raw.notes,
        column=column,
        lowest=float(values.min()),
        highest=float(values.max()),
        mean=float(values.mean()),
        deviation=float(values.std()),
    )
    return NumberDataset(
        texts=used.texts,
        pairs=used.pairs,
        labels=labels,
        label_names=(column,),
        groups=groups,
        rows=np.array(used.rows, dtype=np.int64),
        report=report,
        fingerprint=fingerprint_of(used, groups),
        answers=values,
    )


def rank_strata(values: Numbers, count: int) -> npt.NDArray[np.int64]:
    """(n,) which of ``count`` equal ranges of ranks each number is in, from 0; equal numbers have their mean rank."""
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    middle = (np.cumsum(times) - times / 2.0)[place] / len(values)
    return np.asarray(np.floor(middle * count), dtype=np.int64)


def _check(values: Numbers, column: str) -> None:
    """Whether a model can learn to tell these numbers apart.

    Raises:
        DataError: all are one number, or they are too large, or vary too little for their size.
    """
    greatest = float(np.abs(values).max())
    where = f"column {quoted(column)}"
    if values.min() == values.max():
        raise DataError.about("data.label", f"must vary in {where}", got=f"{values[0]:g} in every row")
    if greatest > _GREATEST:
        raise DataError.about("data.label", f"must be between -1e30 and 1e30 in {where}", got=f"{greatest:g}")
    deviation = float(values.std())
    if greatest > _LEAST_VARIATION * deviation:
        raise DataError.about(
            "data.label",
            f"must vary by a {_LEAST_VARIATION:g}th of its size or more in {where}",
            got=f"{values.mean():.6g} on average with a standard deviation of {deviation:.2g}",
            hint="subtract a constant from it",
        )
