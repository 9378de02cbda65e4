"""Splits: what must hold for any data, what scikit-learn would have done, and what is said when nothing can."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lora_search.data import Splits
from lora_search.errors import DataError

Array = npt.NDArray[np.int64]


def alone(labels: Array) -> Array:
    return np.arange(len(labels), dtype=np.int64)


def parts(splits: Splits, repeat: int = 0) -> list[Array]:
    return [splits.fold(repeat, fold).evaluate for fold in range(splits.folds)]


def mistakes_of(labels: list[int], groups: list[int] | None = None, **settings: Any) -> tuple[str, ...]:
    label_array = np.array(labels, dtype=np.int64)
    group_array = alone(label_array) if groups is None else np.array(groups, dtype=np.int64)
    with pytest.raises(DataError) as caught:
        Splits.make(label_array, group_array, **({"folds": 3, "holdout": 0.0, "seed": 0} | settings))
    return caught.value.mistakes


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[Array, Array]:
    """Groups of 1 to 12 examples, of one label or of several."""
    label_count = draw(st.integers(2, 4))
    label = st.integers(0, label_count - 1)
    drawn = draw(st.lists(st.lists(label, min_size=1, max_size=12), min_size=8, max_size=60))
    labels = np.array([one for group in drawn for one in group], dtype=np.int64)
    groups = np.array([number for number, group in enumerate(drawn) for _ in group], dtype=np.int64)
    shuffled = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return labels[shuffled], groups[shuffled] * 7


@given(
    data=labelled_groups(),
    folds=st.integers(2, 6),
    holdout=st.sampled_from([0.0, 0.1, 0.2, 0.35]),
    seed=st.integers(0, 2**32 - 1),
    repeat=st.integers(0, 5),
)
def test_any_split_keeps_its_promises(
    data: tuple[Array, Array], folds: int, holdout: float, seed: int, repeat: int
) -> None:
    labels, groups = data
    try:
        splits = Splits.make(labels, groups, folds=folds, holdout=holdout, seed=seed)
        made = [splits.fold(repeat, fold) for fold in range(folds)]
    except DataError:
        assume(False)
    # a partition, in order
    assert np.sort(np.concatenate([splits.holdout, splits.development])).tolist() == list(range(len(labels)))
    assert np.sort(np.concatenate([fold.evaluate for fold in made])).tolist() == splits.development.tolist()
    for fold in made:
        assert np.sort(np.concatenate([fold.train, fold.evaluate])).tolist() == splits.development.tolist()
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.evaluate) > 0).all()
        assert len(fold.evaluate) > 0
        # every label can be learnt
        assert set(labels[fold.train]) == set(labels)
        # no group on both sides
        assert not set(groups[fold.train]) & set(groups[fold.evaluate])
    assert not set(groups[splits.holdout]) & set(groups[splits.development])
    assert (len(splits.holdout) > 0) == (holdout > 0)


@given(
    labels=st.lists(st.integers(0, 3), min_size=20, max_size=120),
    folds=st.integers(2, 5),
    holdout=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_single_examples_are_split_within_one_of_exact(
    labels: list[int], folds: int, holdout: float, seed: int
) -> None:
    array = np.unique(np.array(labels), return_inverse=True)[1].astype(np.int64)
    try:
        splits = Splits.make(array, alone(array), folds=folds, holdout=holdout, seed=seed)
    except DataError:
        assume(False)
    for label in np.unique(array):
        total = (array == label).sum()
        assert abs((array[splits.holdout] == label).sum() - holdout * total) < 1
        per_fold = [(array[part] == label).sum() for part in parts(splits)]
        assert max(per_fold) - min(per_fold) <= 1
    sizes = [len(part) for part in parts(splits)]
    assert max(sizes) - min(sizes) <= 1


@given(data=labelled_groups(), seed=st.integers(0, 2**32 - 1))
def test_splits_depend_on_seed_and_repeat_only(data: tuple[Array, Array], seed: int) -> None:
    labels, groups = data
    settings: dict[str, Any] = {"folds": 2, "holdout": 0.2, "seed": seed}
    try:
        one = Splits.make(labels, groups, **settings)
        other = Splits.make(labels, groups, **settings)
        # asked in another order, and some never asked
        late, early = one.fold(3, 1), one.fold(1, 0)
        assert other.fold(1, 0).fingerprint == early.fingerprint
        assert other.fold(3, 1).fingerprint == late.fingerprint
    except DataError:
        assume(False)
    assert one.holdout.tolist() == other.holdout.tolist()
    assert one.holdout_fingerprint == other.holdout_fingerprint
    assert other.fold(3, 1).train.tolist() == late.train.tolist()


def test_repeats_and_seeds_reshuffle() -> None:
    labels = np.arange(60, dtype=np.int64) % 2
    splits = Splits.make(labels, alone(labels), folds=3, holdout=0.0, seed=0)
    again = Splits.make(labels, alone(labels), folds=3, holdout=0.0, seed=1)
    prints = {splits.fold(repeat, fold).fingerprint for repeat in range(4) for fold in range(3)}
    assert len(prints) == 12
    assert again.fold(0, 0).fingerprint not in prints


def test_repeats_differ_even_when_all_groups_differ_in_size() -> None:
    sizes = range(9, 16)
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    labels = (np.arange(len(groups)) % 2).astype(np.int64)
    splits = Splits.make(labels, groups, folds=3, holdout=0.0, seed=0)
    partitions = {frozenset(frozenset(groups[part].tolist()) for part in parts(splits, repeat)) for repeat in range(5)}
    assert len(partitions) == 5


def test_fold_count_does_not_move_the_holdout() -> None:
    labels = np.arange(100, dtype=np.int64) % 4
    three, five = (Splits.make(labels, alone(labels), folds=k, holdout=0.2, seed=3) for k in (3, 5))
    assert three.holdout.tolist() == five.holdout.tolist()
    assert len(three.holdout) == 20


def imbalance(labels: Array, tests: list[Array]) -> float:
    """Standard deviation over folds of each label's share, averaged: what scikit-learn's splitter minimises."""
    counts = np.array([np.bincount(labels[test], minlength=labels.max() + 1) for test in tests])
    return float((counts / counts.sum(axis=0)).std(axis=0).mean())


@pytest.mark.parametrize("group_count", [15, 40, 150])
def test_groups_are_balanced_as_well_as_by_scikit_learn(group_count: int) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(20):
        labels = rng.choice(3, size=600, p=[0.6, 0.3, 0.1]).astype(np.int64)
        groups = rng.integers(0, group_count, 600)
        ours.append(imbalance(labels, parts(Splits.make(labels, groups, folds=5, holdout=0.0, seed=seed))))
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        theirs.append(imbalance(labels, [test for _, test in splitter.split(labels, labels, groups)]))
    assert np.mean(ours) <= np.mean(theirs)


def test_single_examples_are_balanced_as_by_scikit_learn() -> None:
    labels = np.repeat(np.arange(4), [50, 31, 17, 6]).astype(np.int64)
    ours = parts(Splits.make(labels, alone(labels), folds=5, holdout=0.0, seed=0))
    theirs = [test for _, test in StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)]
    assert imbalance(labels, ours) == pytest.approx(imbalance(labels, theirs))


def test_a_rare_label_of_two_groups_is_in_every_training_side() -> None:
    # the rare label 2 rides on two large groups; every training side must still have it
    labels = np.array([0] * 20 + [2] + [1] * 20 + [2] * 2 + [0, 1] * 5, dtype=np.int64)
    groups = np.array([0] * 21 + [1] * 22 + [2 + n // 2 for n in range(10)], dtype=np.int64)
    for seed in range(20):
        splits = Splits.make(labels, groups, folds=3, holdout=0.0, seed=seed)
        assert all(2 in labels[splits.fold(0, fold).train] for fold in range(3))


def test_fewer_examples_of_a_label_than_folds() -> None:
    labels = [0] * 9 + [1] * 2 + [2]
    assert mistakes_of(labels, label_names=["good", "bad", "odd"]) == (
        "cv.folds: must be at most the examples of each label, got 3 folds for 2 examples of 'bad'",
        "cv.folds: must be at most the examples of each label, got 3 folds for 1 example of 'odd'",
    )


def test_fewer_examples_of_a_label_than_folds_after_the_holdout() -> None:
    assert mistakes_of([0] * 40 + [1] * 4, folds=4, holdout=0.3) == (
        "cv.folds: must be at most the examples of each label, got 4 folds for 3 examples of '1', "
        "after a hold-out of 0.3",
    )


def test_fewer_groups_than_folds() -> None:
    assert mistakes_of([0, 1] * 10, [0] * 10 + [1] * 10) == (
        "cv.folds: must be at most the number of groups, got 3 folds for 2 groups of examples",
    )
    assert mistakes_of([0, 1] * 10, [n // 5 for n in range(20)], folds=4, holdout=0.25) == (
        "cv.folds: must be at most the number of groups, got 4 folds for 3 groups of examples, "
        "after a hold-out of 0.25",
    )


def test_a_label_in_one_group_only() -> None:
    (mistake,) = mistakes_of([0] * 12 + [1] * 6, [*range(12), *[50] * 6])
    assert mistake.startswith(
        "data.label: must occur in two groups or more to be trained and evaluated, got '1' with 6"
    )


def test_a_holdout_too_small_for_any_group() -> None:
    assert mistakes_of([0, 1] * 20, [n // 10 for n in range(40)], folds=2, holdout=0.01) == (
        "data.holdout: must be large enough for one group of examples, got 0.01 of 4 groups",
    )


def test_groups_that_no_two_folds_can_part() -> None:
    # three groups, each two of them sharing a label nobody else has: two must meet in a fold, and take a label along
    labels = [0, 1, 1, 2, 2, 0]
    assert mistakes_of(labels, [0, 0, 1, 1, 2, 2], folds=2) == (
        "cv.folds: must allow every label in every training side, got 2 folds of 3 groups of examples; "
        "a label is in so few groups that one fold takes them all; use other folds or smaller groups",
    )


def test_no_such_fold() -> None:
    labels = np.arange(20, dtype=np.int64) % 2
    splits = Splits.make(labels, alone(labels), folds=3, holdout=0.0, seed=0)
    for repeat, fold in ((0, 3), (0, -1), (-1, 0)):
        with pytest.raises(IndexError, match=r"fold in 0\.\.2"):
            splits.fold(repeat, fold)


def test_nothing_is_said_on_the_way() -> None:
    labels = np.array([0] * 30 + [1] * 3, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Splits.make(labels, alone(labels), folds=3, holdout=0.0, seed=0).fold(0, 0).train) == 22
