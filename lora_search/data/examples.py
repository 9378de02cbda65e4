"""From raw rows to usable examples: labels dropped, mistakes named, a sample taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_search.data.labels import in_order, lookalikes, mistake_of_many, plain_form, written_as_missing
from lora_search.data.randomness import Purpose, generator
from lora_search.data.sources import RawExamples
from lora_search.data.wording import labels_phrase, nearest, rows_phrase
from lora_search.errors import DataError, Mistake
from lora_search.spec.experiment import DataSpec
from lora_search.spec.quoting import quoted

_LOST_SHOWN = 5
_OTHERS = "other types"


def clean(raw: RawExamples, spec: DataSpec) -> RawExamples:
    """Drop the rows of ``drop_labels``; check that the others can be used.

    Raises:
        DataError: a label to drop that is not there; missing labels, empty texts or missing groups, with their rows;
            fewer than two labels left, or one for nearly every row.
    """
    column = spec.label_columns[0]
    found = Counter(label for label in raw.labels if plain_form(label))
    counts = {label: found[label] for label in in_order(found, raw.label_names)}
    mistakes = unknown_to_drop(spec, counts)
    kept = raw.take(index for index, label in enumerate(raw.labels) if label not in spec.drop_labels)
    seen = [plain_form(label) for label in kept.labels]
    mistakes += gaps(kept, spec, seen)
    remaining = {label: count for label, count in counts.items() if label not in spec.drop_labels}
    if len(remaining) < 2:
        after = " after data.drop_labels" if spec.drop_labels else ""
        mistakes.append(
            Mistake(
                f"must have two labels or more in column {quoted(column)}",
                "data.label",
                f"{labels_phrase(remaining) or 'none'}{after}",
            )
        )
    if (no_classes := mistake_of_many(remaining, column)) is not None:
        mistakes.append(no_classes)
    if mistakes:
        raise DataError(mistakes)
    return kept


def sample_of_strata(examples: RawExamples, strata: Sequence[str], size: int, seed: int) -> RawExamples:
    """As ``sample``, by strata instead of labels: those that are too small to leave something of each are one.

    Args:
        examples: to be sampled.
        strata: of each.
        size, seed: as in ``sample``.
    """
    names, numbers = np.unique(np.array(strata, dtype=object), return_inverse=True)
    merged = merged_strata(numbers.astype(np.int64), -(-len(examples) // size) + 1)
    return sample_by(examples, [names[label] if label < len(names) else _OTHERS for label in merged], size, seed)


def sample_by(examples: RawExamples, strata: Sequence[str], size: int, seed: int) -> RawExamples:
    """As ``sample``, by strata instead of labels, none of which may be too small."""
    place = {row: position for position, row in enumerate(examples.rows)}
    chosen = sample(replace(examples, labels=tuple(strata)), size, seed)
    return examples.take(place[row] for row in chosen.rows)


def sample(examples: RawExamples, size: int, seed: int) -> RawExamples:
    """``size`` examples, each label in proportion, in their order in the source. Larger samples contain smaller ones'
    examples, but for the rounding of a label's share.

    Raises:
        DataError: a label so rare that the sample would have none of it.
    """
    names, labels = np.unique(np.array(examples.labels, dtype=object), return_inverse=True)
    counts = np.bincount(labels)
    quotas = _proportional(counts, size)
    check_none_lost(
        size, len(examples), {str(n): int(c) for n, c, q in zip(names, counts, quotas, strict=True) if q == 0}
    )
    order = generator(seed, Purpose.SAMPLE).permutation(len(examples))
    chosen = np.concatenate([order[labels[order] == label][:quota] for label, quota in enumerate(quotas)])
    return examples.take(np.sort(chosen).tolist())


def check_none_lost(size: int, examples: int, lost: Mapping[str, int]) -> None:
    """Check that a sample leaves something of every label.

    Args:
        size: of the sample. examples: there were.
        lost: label -> examples of it, for those of which none is left.

    Raises:
        DataError: there are such.
    """
    if not lost:
        return
    shown = [f"{quoted(name)} ({count} of {examples})" for name, count in lost.items()]
    more = f" and {len(shown) - _LOST_SHOWN} more" if len(shown) > _LOST_SHOWN else ""
    raise DataError.about(
        "data.max_examples",
        "must leave an example of every label",
        got=f"{size}, which leaves none of {', '.join(shown[:_LOST_SHOWN])}{more}",
        hint="raise it, or name the label in data.drop_labels",
    )


def _proportional(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Whole numbers that sum to ``size`` in proportion to ``counts``: largest remainders, the first label wins ties."""
    exact, remainders = np.divmod(counts.astype(np.int64) * size, counts.sum())
    upward = np.argsort(-remainders, kind="stable")[: size - exact.sum()]
    exact[upward] += 1
    return np.asarray(exact, dtype=np.int64)


def unknown_to_drop(spec: DataSpec, counts: Mapping[str, int]) -> list[Mistake]:
    """A mistake for each of ``drop_labels`` that is no label.

    Args:
        spec: ``[data]``.
        counts: label -> examples.
    """
    return [
        Mistake(
            "must name labels of the data",
            "data.drop_labels",
            quoted(label),
            nearest(label, counts),
            hint=f"(labels: {labels_phrase(counts)})",
        )
        for label in spec.drop_labels
        if label not in counts
    ]


def gaps(examples: RawExamples, spec: DataSpec, labels: Sequence[str] | None) -> list[Mistake]:
    """A mistake for each column that is not filled in.

    Args:
        examples: as read.
        spec: ``[data]``.
        labels: of each, blank where there is none; None where none is asked for.
    """
    return [
        *_gaps("data.label", spec.label_columns[0], "missing labels", labels, examples.rows),
        *_gaps("data.text", spec.text, "empty texts", examples.texts, examples.rows),
        *_gaps("data.text_pair", spec.text_pair, "empty texts", examples.pairs, examples.rows),
        *_gaps("data.group", spec.group, "missing groups", examples.groups, examples.rows),
    ]


def merged_strata(labels: npt.NDArray[np.int64], least: int) -> npt.NDArray[np.int64]:
    """Strata of ``least`` examples or more: rarer ones become one, and join the largest where that is still too few."""
    counts = np.bincount(labels)
    rare = (counts > 0) & (counts < least)
    pooled = len(counts) if counts[rare].sum() >= least else int(counts.argmax())
    return np.asarray(np.where(rare[labels], pooled, labels), dtype=np.int64)


def _gaps(key: str, column: str | None, what: str, values: Sequence[str] | None, rows: Sequence[int]) -> list[Mistake]:
    """One mistake if values are blank, else none."""
    blank = [row for value, row in zip(values or (), rows, strict=False) if not value.strip()]
    rule = f"column {quoted(column)} must be filled in"
    return [Mistake(rule, key, f"{what} in {rows_phrase(blank)}")] if blank else []


def about_rows(
    raw: RawExamples,
    used: RawExamples,
    duplicates: Sequence[Sequence[int]],
    answers: Sequence[Hashable] | None = None,
    swaps: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
    """What every ``DataReport`` says of rows, by its attributes.

    Args:
        raw: as read. used: what became of them.
        duplicates: positions in ``used`` that hold the same texts, for each such text.
        answers: of ``used``, where copies of a text may contradict each other.
        swaps: positions in ``used`` that hold the same text pair, one way round or the other.
    """
    groups = Counter(used.groups or ())
    return {
        "rows": len(raw),
        "group_count": None if used.groups is None else len(set(used.groups)),
        "duplicate_texts": len(duplicates),
        "duplicate_examples": sum(map(len, duplicates)),
        "swapped_pairs": len(swaps),
        "group_lookalikes": lookalikes(groups),
        "missing_groups": written_as_missing(groups),
        "missing_texts": written_as_missing(Counter([*used.texts, *(used.pairs or ())])),
        "contradictions": tuple(
            tuple(used.rows[position] for position in positions)
            for positions in duplicates
            if answers is not None and len({answers[position] for position in positions}) > 1
        ),
    }
