"""Hold-out and repeated k-fold splits: stratified by label, never tearing a group apart, each with a fingerprint.

One algorithm makes them all, with or without groups. Groups are dealt to parts one at a time, large ones first, each
to the part that lacks most of the group's labels: a greedy balance in the manner of scikit-learn's
``StratifiedGroupKFold``, which takes equal parts only and needs seconds per split at 10,000 groups. A group is a user's
group, the copies of one text, or a single example. When all are single examples, labels and sizes of folds differ by
one at most, as with ``StratifiedKFold``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from lora_search.data.randomness import Purpose, generator
from lora_search.errors import DataError, Mistake
from lora_search.spec.quoting import quoted

Indices = npt.NDArray[np.int64]

# a draw is refused only when a label's few groups happen to meet in one part; another order nearly always parts them
_DRAWS = 100
_LABELS_SHOWN = 3
_NAME_WIDTH = 40


@dataclass(frozen=True, eq=False)
class Fold:
    """One part of one repeat. ``train`` and ``evaluate`` are sorted positions in the dataset; neither has hold-out."""

    repeat: int
    fold: int
    train: Indices
    evaluate: Indices
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Splits:
    """Every split of one study. Any repeat can be asked for at any time; it depends on (seed, repeat) only.

    Attributes:
        holdout: sorted positions set aside before any fold; empty without a hold-out.
        development: sorted positions of all others.
        holdout_fingerprint: sha256 of ``holdout`` and ``development``.
        folds: parts per repeat, k.
        seed: the experiment's seed.
    """

    holdout: Indices
    development: Indices
    holdout_fingerprint: str
    folds: int
    seed: int
    _counts: npt.NDArray[np.int64] = field(repr=False)  # (groups, labels) of the development examples
    _group_of: Indices = field(repr=False)  # (development examples,) rows of _counts
    _parts: dict[int, Indices] = field(default_factory=dict, repr=False)  # repeat -> part of each development example

    @classmethod
    def make(
        cls,
        labels: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
        *,
        folds: int,
        holdout: float,
        seed: int,
        label_names: Sequence[str] = (),
    ) -> Splits:
        """Set the hold-out aside and check that the rest can be split.

        Args:
            labels: (n,) label of each example; or (n, labels), 1 for those it has, where it may have several.
            groups: (n,) group of each example; all different means no groups.
            folds: parts per repeat, at least 2.
            holdout: share of the examples to set aside, 0 to below 1. Met as nearly as whole groups allow.
            seed: the experiment's seed.
            label_names: names by label, for messages.

        Raises:
            DataError: fewer examples of a label, or fewer groups, than folds; a label in one group only; a hold-out
                that no group fits, or that leaves too little.
        """
        most = labels.shape[1] if labels.ndim > 1 else int(labels.max()) + 1
        names = list(label_names) or [str(label) for label in range(most)]
        everything = np.arange(len(labels), dtype=np.int64)
        counts, group_of = _count(labels, groups, len(names))
        _require_enough(counts, names, folds)
        held = np.zeros(len(labels), dtype=bool)
        if holdout:
            held = _draw_holdout(counts, names, folds, holdout, seed)[group_of]
        development = everything[~held]
        counts, group_of = _count(labels[~held], groups[~held], len(names))
        set_aside = everything[held]
        made = cls(set_aside, development, _fingerprint(set_aside, development), folds, seed, counts, group_of)
        made._partition(0)  # what cannot be split is said now, not after the first repeat was trained
        return made

    def fold(self, repeat: int, fold: int) -> Fold:
        """Fold ``fold`` of repeat ``repeat``, both from 0.

        Raises:
            IndexError: no such fold.
        """
        if not (repeat >= 0 and 0 <= fold < self.folds):
            raise IndexError(f"repeat must be at least 0 and fold in 0..{self.folds - 1}, got ({repeat}, {fold})")
        parts = self._partition(repeat)
        train, evaluate = self.development[parts != fold], self.development[parts == fold]
        return Fold(repeat, fold, train, evaluate, _fingerprint(train, evaluate))

    def _partition(self, repeat: int) -> Indices:
        if repeat not in self._parts:
            self._parts[repeat] = _draw_folds(self._counts, self.folds, self.seed, repeat)[self._group_of]
        return self._parts[repeat]


def _count(labels: Indices, groups: Indices, label_count: int) -> tuple[npt.NDArray[np.int64], Indices]:
    """Examples of each label in each group, (groups, labels), and each example's row in it, (n,).

    Args:
        labels: (n,), or (n, labels) as ``make`` takes them.
        groups: (n,). label_count: how many labels there are.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(group_of.max(initial=-1)) + 1, label_count), dtype=np.int64)
    if labels.ndim > 1:
        np.add.at(counts, group_of, labels)
    else:
        np.add.at(counts, (group_of, labels), 1)
    return counts, group_of.astype(np.int64)


def _deal(counts: npt.NDArray[np.int64], shares: Sequence[float], draw: int, rng: np.random.Generator) -> Indices:
    """The part of each group, such that each part has its share of every label.

    A group with x[c] examples of label c goes to the part p with the largest sum over c of x[c] wanted[p, c] / n[c]^2:
    the step that most reduces the squared relative distance to the wanted counts. Ties go to the part that lacks most
    examples.

    Args:
        counts: (groups, labels).
        shares: of each part, summing to 1.
        draw: how many draws came before.
        rng: orders groups of about the same size.
    """
    totals = counts.sum(axis=0)
    wanted = np.outer(shares, totals)
    weights = counts / np.maximum(totals, 1) ** 2
    parts = np.empty(len(counts), dtype=np.int64)
    for group in _large_first(counts, draw, rng):
        merit = (wanted * weights[group]).sum(axis=1)
        best = np.flatnonzero(merit >= merit.max() - 1e-9 * weights[group].sum())
        part = best[np.argmax(wanted[best].sum(axis=1).round(6))]
        wanted[part] -= counts[group]
        parts[group] = part
    return parts


def _large_first(counts: npt.NDArray[np.int64], draw: int, rng: np.random.Generator) -> Indices:
    """Groups from large to small, in random order among sizes within a factor of 2, or 4, 8, ... in later draws.

    Strictly by size, groups of different sizes would make the same split in every repeat and every draw. Single
    examples go label by label, which keeps the parts' sizes within one of each other.
    """
    sizes = counts.sum(axis=1)
    label = np.where(sizes == 1, counts.argmax(axis=1), 0)
    about = np.floor(np.log2(sizes) / (1 + draw))
    order = np.lexsort((rng.permutation(len(counts)), label, -about))
    return order.astype(np.int64)


def _draw_holdout(
    counts: npt.NDArray[np.int64], names: Sequence[str], folds: int, share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Which groups to hold out, such that the rest has enough of every label for the folds."""
    for draw in range(_DRAWS):
        rng = generator(seed, Purpose.HOLDOUT, draw)
        held: npt.NDArray[np.bool_] = _deal(counts, (share, 1 - share), draw, rng) == 0
        if held.any() and not _too_little(counts[~held], names, folds):
            return held
    if not held.any():
        raise DataError.about(
            "data.holdout", "must be large enough for one group of examples", got=f"{share:g} of {len(counts)} groups"
        )
    raise DataError(
        [
            replace(mistake, got=f"{mistake.got}, after a hold-out of {share:g}")
            for mistake in _too_little(counts[~held], names, folds)
        ]
    )


def _draw_folds(counts: npt.NDArray[np.int64], folds: int, seed: int, repeat: int) -> Indices:
    """The part of each group, such that every label is in two parts or more, and so in every training side."""
    for draw in range(_DRAWS):
        parts = _deal(counts, [1 / folds] * folds, draw, generator(seed, Purpose.FOLDS, repeat, draw))
        in_part = np.zeros((folds, counts.shape[1]), dtype=np.int64)
        np.add.at(in_part, parts, counts)
        if ((in_part > 0).sum(axis=0) >= 2).all():
            return parts
    raise DataError.about(
        "cv.folds",
        "must allow every label in every training side",
        got=f"{folds} folds of {len(counts)} groups of examples",
        hint="a label is in so few groups that one fold takes them all; use other folds or smaller groups",
    )


def _require_enough(counts: npt.NDArray[np.int64], names: Sequence[str], folds: int) -> None:
    mistakes = _too_little(counts, names, folds)
    if mistakes:
        raise DataError(mistakes)


def _too_little(counts: npt.NDArray[np.int64], names: Sequence[str], folds: int) -> list[Mistake]:
    """What stands in the way of a split into folds."""
    if len(counts) < folds:
        return [
            Mistake(
                "must be at most the number of groups",
                "cv.folds",
                f"{folds} folds for {len(counts)} groups of examples",
            )
        ]
    few: list[str] = []
    lone: list[str] = []
    for name, examples, groups in zip(names, counts.sum(axis=0), (counts > 0).sum(axis=0), strict=True):
        if examples < folds:
            few.append(f"{examples} example{'' if examples == 1 else 's'} of {quoted(name, _NAME_WIDTH)}")
        elif groups < 2:
            lone.append(f"{quoted(name, _NAME_WIDTH)} with {examples} examples in one group")
    of_too_few = Mistake("must be at most the examples of each label", "cv.folds")
    of_one_group = Mistake(
        "must occur in two groups or more to be trained and evaluated",
        "data.label",
        hint="(examples of one data.group and copies of one text stay together)",
    )
    return [
        *(replace(of_too_few, got=f"{folds} folds for {got}") for got in _each_or_all(few, len(names))),
        *(replace(of_one_group, got=got) for got in _each_or_all(lone, len(names))),
    ]


def _each_or_all(labels: Sequence[str], of: int) -> Sequence[str]:
    """What is told of each label, or of all in one where they are many."""
    if len(labels) <= _LABELS_SHOWN:
        return labels
    return [f"{', '.join(labels[:_LABELS_SHOWN])} and so on: {len(labels)} of {of} labels"]


def _fingerprint(first: Indices, second: Indices) -> str:
    """sha256 of two lists of positions, lengths included."""
    digest = hashlib.sha256()
    for positions in (first, second):
        digest.update(len(positions).to_bytes(8, "little"))
        digest.update(positions.astype("<i8").tobytes())
    return digest.hexdigest()
