"""The comparison by examples: numbers by hand, groups, repeats, missing cells, intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lora_search.errors import StudyError
from lora_search.statistics.comparison import Array, pairwise
from lora_search.statistics.examples import ExampleScores, Recorded, contributions
from lora_search.statistics.matrix import score_matrix
from lora_search.statistics.two_sources import pairwise_by_example, scores_by_example

FOLDS = 5


def drawn(
    rng: np.random.Generator,
    rows: int,
    examples: int,
    *,
    repeats: int = 1,
    luck: float = 0.0,
    group_size: int = 1,
    better: float = 0.0,
) -> ExampleScores:
    """Right or wrong by a latent score: difficulty of the example and what a row makes of it, both partly its group's;
    luck of the training, correlated 1 / folds; chance. The first row is ahead by ``better``."""
    groups = np.arange(examples) // group_size
    count = groups.max() + 1

    def of_examples(*shape: int) -> Array:
        alone = rng.standard_normal((*shape, examples))
        return np.sqrt(0.5) * rng.standard_normal((*shape, count))[..., groups] + np.sqrt(0.5) * alone

    folds = np.stack([(rng.permutation(count) % FOLDS)[groups] for _ in range(repeats)])
    lasting = of_examples(1)[0] + 0.4 * of_examples(rows)
    trainings = np.sqrt(0.2) * rng.standard_normal((rows, 1, 1))
    trainings = luck * (trainings + np.sqrt(0.8) * rng.standard_normal((rows, repeats, FOLDS)))
    ahead = np.where(np.arange(rows) == 0, better, 0.0)[:, None, None]
    of_fold = np.take_along_axis(trainings, np.broadcast_to(folds, (rows, *folds.shape)), axis=2)
    chance = 0.4 * rng.standard_normal(of_fold.shape)
    return ExampleScores(1.0 * (lasting[:, None] + ahead + of_fold + chance > -0.9), folds, groups)


def test_worked_out_by_hand() -> None:
    # two folds of four examples; differences 1 1 0 0 and 1 0 0 0: fold means 1/2 and 1/4, mean 3/8
    # squares around the fold's mean: 1 and 3/4, so each fold's mean has 1/16 * 4/3 of them: 1/12 and 1/16
    first = np.array([1, 1, 1, 0, 1, 1, 0, 1.0])
    second = np.array([0, 0, 1, 0, 0, 1, 0, 1.0])
    folds = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    pairs = pairwise_by_example(ExampleScores(np.stack([first, second])[:, None], folds, np.arange(8)), folds=2)
    assert pairs.mean[0, 1] == pytest.approx(3 / 8)
    # examples: (1/12 + 1/16) / 4 = 7/192. Fold means vary by 1/32, less than the mean of 1/12 and 1/16, so trainings
    # add nothing
    assert pairs.scale[0, 1] ** 2 == pytest.approx(7 / 192)
    assert pairs.variance[0, 1] == pytest.approx(7 / 96)
    assert pairs.cells[0, 1] == 2


def test_trainings_worked_out_by_hand() -> None:
    # folds of four whose differences are 1 1 1 0 and -1 -1 -1 0: means 3/4 and -3/4 vary by 9/8, and each has 3/4 * 4/3
    # / 16 = 1/16 from its examples; so trainings have 9/8 - 1/16 = 17/16, and rho = 1/2 adds it (1/2 + 1) times
    first = np.array([1, 1, 1, 0, 0, 0, 0, 0.0])
    second = np.array([0, 0, 0, 0, 1, 1, 1, 0.0])
    folds = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    pairs = pairwise_by_example(ExampleScores(np.stack([first, second])[:, None], folds, np.arange(8)), folds=2)
    assert pairs.mean[0, 1] == 0
    assert pairs.scale[0, 1] ** 2 == pytest.approx(1 / 32 + 1.5 * 17 / 16)
    assert pairs.variance[0, 1] == pytest.approx(9 / 8)


def test_mean_and_cells_are_those_of_the_fold_scores() -> None:
    examples = drawn(np.random.default_rng(0), 5, 60, repeats=2, luck=0.1)
    sources = np.repeat(np.arange(5)[:, None], 2 * FOLDS, axis=1)
    sources[1, 3:], sources[2, [0, 7]] = -1, -1
    some = examples.composed(sources)
    new, old = pairwise_by_example(some, FOLDS), pairwise(some.cell_scores(), FOLDS)
    np.testing.assert_allclose(new.mean, old.mean, atol=1e-12)
    np.testing.assert_array_equal(new.cells, old.cells)
    np.testing.assert_allclose(new.mean, -new.mean.T)
    np.testing.assert_allclose(new.scale, new.scale.T)
    assert (new.scale[~np.eye(5, dtype=bool)] > 0).all()


def test_variance_of_examples_counts_each_once_and_by_group() -> None:
    rng = np.random.default_rng(1)
    once = drawn(rng, 2, 300, group_size=3)
    alone = ExampleScores(once.values, once.folds, np.arange(300))
    # copies in one group say no more than one of them
    copied = ExampleScores(*(np.repeat(part, 4, axis=-1) for part in (alone.values, alone.folds, alone.groups)))
    assert pairwise_by_example(copied, FOLDS).scale[0, 1] == pytest.approx(
        pairwise_by_example(alone, FOLDS).scale[0, 1]
    )
    # nor does a repeat that predicts the same
    twice = ExampleScores(np.tile(alone.values, (1, 2, 1)), np.tile(alone.folds, (2, 1)), alone.groups)
    assert pairwise_by_example(twice, FOLDS).lasting[0, 1] == pytest.approx(
        pairwise_by_example(alone, FOLDS).scale[0, 1] ** 2
    )


def test_no_pair_is_compared_without_two_cells_in_a_study_of_two() -> None:
    examples = drawn(np.random.default_rng(2), 2, 60)
    one = examples.composed(np.array([[0, -1, -1, -1, -1], [1, -1, -1, -1, -1]]))
    pairs = pairwise_by_example(one, FOLDS)
    assert np.isinf(pairs.scale[0, 1])
    assert np.isnan(pairs.variance[0, 1])
    none = examples.composed(np.array([[0, -1, -1, -1, -1], [-1, 1, 1, 1, 1]]))
    assert pairwise_by_example(none, FOLDS).probability_at_most(0.5)[0, 1] == 0.5


def test_one_cell_borrows_what_the_study_knows() -> None:
    examples = drawn(np.random.default_rng(3), 4, 200)
    sources = np.repeat(np.arange(4)[:, None], FOLDS, axis=1)
    sources[3, 1:] = -1
    pairs = pairwise_by_example(examples.composed(sources), FOLDS)
    assert np.isfinite(pairs.scale[3, 0])
    assert pairs.scale[3, 0] > 1.5 * pairs.scale[1, 0]


def test_equal_predictions_are_known_to_be_equal_up_to_the_resolution() -> None:
    examples = drawn(np.random.default_rng(4), 3, 200)
    same = examples.of([0, 0, 1])
    pairs = pairwise_by_example(same, FOLDS)
    assert pairs.mean[0, 1] == 0
    assert 0 < pairs.scale[0, 1] < 0.5 * pairs.scale[0, 2]
    assert np.isfinite(pairwise_by_example(examples.of([0, 0]), FOLDS).scale[0, 1])


@pytest.mark.parametrize(("luck", "group_size", "repeats"), [(0.0, 1, 1), (0.1, 1, 1), (0.1, 4, 2)])
def test_intervals_hold_the_truth_as_often_as_they_say(luck: float, group_size: int, repeats: int) -> None:
    rng = np.random.default_rng(5)
    held, scales, means, own, scores = [], [], [], [], []
    for _ in range(60):
        examples = drawn(rng, 8, 250, luck=luck, group_size=group_size, repeats=repeats)
        pairs, score = pairwise_by_example(examples, FOLDS), scores_by_example(examples, FOLDS)
        own.append(score.scale)
        scores.append(score.mean)
        low, high = (bound[[0, 2, 4, 6], [1, 3, 5, 7]] for bound in pairs.interval(0.95))
        held.append((low <= 0) & (high >= 0))
        scales.append(pairs.scale[[0, 2, 4, 6], [1, 3, 5, 7]])
        means.append(pairs.mean[[0, 2, 4, 6], [1, 3, 5, 7]])
    assert 0.92 <= np.mean(held) <= 0.995
    assert 0.85 <= np.sqrt(np.mean(np.square(scales))) / np.std(means) <= 1.25
    assert 0.85 <= np.sqrt(np.mean(np.square(own))) / np.std(scores) <= 1.25


def test_sharper_than_the_fold_scores() -> None:
    rng = np.random.default_rng(6)
    ratios = []
    for _ in range(8):
        examples = drawn(rng, 8, 600)
        new, old = pairwise_by_example(examples, FOLDS), pairwise(examples.cell_scores(), FOLDS)
        upper = np.triu_indices(8, 1)
        ratios.append(np.median(new.scale[upper] / old.scale[upper]))
    assert np.median(ratios) < 0.8


def test_the_score_of_one_row_worked_out_by_hand() -> None:
    # two folds of four, 3 and 2 right: mean 5/8; of their examples each mean has (3/4 and 1) * 4/3 / 16 = 1/16 and 1/12
    # fold means vary by 1/32, less than that, so trainings add nothing: (1/16 + 1/12) / 4
    values = np.array([[[1, 1, 1, 0, 1, 1, 0, 0.0]]])
    own = scores_by_example(ExampleScores(values, np.array([[0, 0, 0, 0, 1, 1, 1, 1]]), np.arange(8)), folds=2)
    assert own.mean == pytest.approx([5 / 8])
    assert own.scale**2 == pytest.approx([7 / 192])


def test_contributions_of_a_mean_are_the_examples_own() -> None:
    right = np.array([1, 0, 1, 1.0])
    counts = np.stack([right, np.ones(4)], axis=1)
    np.testing.assert_allclose(contributions(counts, lambda sums: sums[..., 0] / sums[..., 1]), right)


def test_contributions_spread_as_the_score_does() -> None:
    def f1(sums: Array) -> Array:
        return 2.0 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1.0)

    rng = np.random.default_rng(8)
    found, errors = [], []
    for _ in range(400):
        truth = rng.random(150) < 0.3
        said = np.where(rng.random(150) < 0.8, truth, ~truth)
        counts = 1.0 * np.stack([truth & said, said, truth], axis=1)
        values = contributions(counts, f1)
        assert values.mean() == pytest.approx(float(f1(counts.sum(axis=0))))
        found.append(values.mean())
        errors.append(values.var(ddof=1) / 150)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(found), rel=0.12)


def recorded(trials: int = 3, examples: int = 40) -> tuple[Recorded, Array]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, examples)
    sure = rng.random((trials, examples))
    rows = [
        {"trial": 10 + trial, "repeat": 0, "fold": example % FOLDS, "example": example, "p0": 1 - p, "p1": p}
        for trial in range(trials)
        for example in range(examples)
        for p in [sure[trial, example]]
    ]
    frame = pd.DataFrame({"label": labels, "group": np.arange(examples) // 2})
    return Recorded(pd.DataFrame(rows), frame), (sure > 0.5) == labels


def test_recorded_predictions_become_values() -> None:
    study, right = recorded()
    found = study.scores([12, 10], "accuracy")
    assert found is not None
    np.testing.assert_allclose(found.values[:, 0], right[[2, 0]], atol=1e-12)
    np.testing.assert_array_equal(found.folds[0], np.arange(40) % FOLDS)
    assert found.groups[3] == 1
    assert found.columns == tuple((0, fold) for fold in range(FOLDS))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "matthews_correlation"])
def test_contributions_come_to_the_scores_of_cells(metric: str) -> None:
    study, _ = recorded(examples=60)
    found = study.scores([10, 11, 12], metric)
    assert found is not None
    labels = study.examples["label"].to_numpy()
    for trial, scores in zip([10, 11, 12], found.cell_scores(), strict=True):
        for fold, score in enumerate(scores):
            mine = study.predictions[(study.predictions["trial"] == trial) & (study.predictions["fold"] == fold)]
            truth, said = labels[mine["example"]], mine[["p0", "p1"]].to_numpy().argmax(axis=1)
            expected = {
                "accuracy": accuracy_score(truth, said),
                "macro_f1": f1_score(truth, said, labels=[0, 1], average="macro", zero_division=0.0),
                "matthews_correlation": matthews_corrcoef(truth, said),
            }
            assert score == pytest.approx(expected[metric])


def test_no_values_of_an_unknown_metric_or_without_predictions() -> None:
    study, _ = recorded()
    assert study.scores([10, 11], "no such metric") is None
    assert study.scores([10, 99], "accuracy") is None
    assert study.scores([], "accuracy") is None


def test_an_example_in_two_folds_is_an_error() -> None:
    study, _ = recorded()
    study.predictions.loc[0, "fold"] = 3
    with pytest.raises(StudyError, match="each example out in one fold"):
        study.scores([10, 11], "accuracy")


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 1, 4\), \(1, 5\) and \(5,\)"):
        ExampleScores(np.zeros((2, 1, 4)), np.zeros((1, 5), dtype=np.int64), np.arange(5))


def test_a_matrix_compares_by_examples_where_it_has_them() -> None:
    study, right = recorded()
    trials = pd.DataFrame({"trial": [10, 11, 12], "state": "complete", "adapter_parameters": [1, 2, 3]})
    cells = pd.DataFrame(
        {"trial": 10 + trial, "repeat": 0, "fold": fold, "state": "complete", "accuracy": right[trial, fold::5].mean()}
        for trial in range(3)
        for fold in range(FOLDS)
    )
    by_example = score_matrix(trials, cells, "accuracy", recorded=study)
    by_fold = score_matrix(trials, cells, "accuracy")
    assert by_example.examples is not None
    np.testing.assert_allclose(by_example.examples.cell_scores(), by_example.scores)
    np.testing.assert_allclose(by_example.pairs(FOLDS).mean, by_fold.pairs(FOLDS).mean)
    assert (by_example.pairs(FOLDS).scale != by_fold.pairs(FOLDS).scale).any()
    assert by_fold.examples is None


def test_errors_are_compared_alike_in_every_unit() -> None:
    """What counting cannot tell apart is no measure of an error in the unit of a label, however small that is."""
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(3), 20)[None]
    errors = rng.gamma(2.0, size=(3, 1, 60))
    errors[2] = errors[1]  # two that predict the same
    large, small = (
        pairwise_by_example(ExampleScores(unit * errors, folds, np.arange(60), counted=False), folds=3)
        for unit in (1.0, 1e-6)
    )
    np.testing.assert_allclose(large.scale, small.scale * 1e6, rtol=1e-9)
    np.testing.assert_allclose(large.probability_at_most(0.1), small.probability_at_most(0.1e-6), rtol=1e-9)
    assert large.probability_at_most(0.01)[1, 2] == 1.0
