"""How much better is one trial than another: what the test examples contribute, and what the trainings contribute.

The correlated t (:mod:`comparison`) sees one number per fold. Where a metric is a mean over examples the difference of
two trials is known for every example, and its variance can be taken apart. For example i, tested in fold f of repeat r,

    difference = true difference + example_i + training_rf + remainder

*Examples.* In k-fold cross-validation no two folds share a test example, so the mean over all n out-of-fold examples
varies by V / n for the examples' sake, V being their variance around their fold's mean: nothing is inflated for
training sets that overlap (Bayle et al. 2020, theorem 1 and the within-fold estimator of section 4.1; Austern and Zhou
2020). Examples of one group are summed before they are squared (the cluster-robust variance, Liang and Zeger 1986). An
example tested in several repeats counts once, with its mean, so that repeats average out the chance in its predictions,
and never the choice of examples.

*Trainings.* That theorem is about the trained models at hand. Another dataset gives other trainings, each with luck of
its own that moves a whole fold. It shows as fold differences that scatter more than their examples explain,

    E[S^2] = V / m + B        for folds of m examples,

which is the omega - gamma of Bengio and Grandvalet (2004, equation 7). Per pair, B hangs on few cells. So the ratio
S^2 / (V / m), 1 if examples explain everything, is shrunk toward that of all pairs of the study as variances are in
``comparison`` (Smyth 2004), and not let below 1. A ratio, because pairs that disagree on more examples also gain and
lose more by a training (the dispersion of McCullagh and Nelder 1989, section 4.5).

*Correlated trainings.* Training sets share (k - 2) / (k - 1) of their examples, so luck is shared between folds, and
that part does not show in S^2. If it is correlated rho between any two trainings on one dataset, the mean over J cells
varies by B (1/J + rho / (1 - rho)). From one dataset rho cannot be estimated (Bengio and Grandvalet 2004, theorem 1).
See :func:`training_correlation` for what is assumed.

    scale^2 = V / n + B (1/J + rho / (1 - rho))

Degrees of freedom follow Satterthwaite (1946) from those of both parts. Bates, Hastie and Tibshirani (2021) show by
simulation that the first part alone covers too little when models are unstable; the second is what is missing.

Where both trials predict the same on every example, nothing is known of their noise but that it is below what can be
resolved: that floor is one disagreement in one fold's examples, as ``comparison`` has it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import (
    Array,
    Posterior,
    VariancePrior,
    fit_variance_prior,
    residual_degrees_of_freedom,
    shrink_variance,
)
from lora_search.statistics.examples import ExampleScores

_LASTING_SHARE = 0.5
"""Of what examples contribute, the part that further repeats do not average out, where no repeat tells."""


def training_correlation(folds: int) -> float:
    """Correlation between the luck of two trainings of one dataset: 1 / folds.

    Nadeau and Bengio (2003, section 3.2) set the correlation of two fold scores to the share of examples a fold tests,
    here applied to what training contributes, and not to what test examples do, of which folds share none.
    """
    return 1.0 / folds


def pairwise_by_example(examples: ExampleScores, folds: int) -> Posterior:
    """Every row against every row, from the examples; drop-in for :func:`comparison.pairwise`.

    Args:
        examples: of all rows; a pair uses the cells both have.
        folds: the k of k-fold.

    Returns:
        posterior arrays ``(rows, rows)``; entry [b, c] is about score(b) - score(c). ``variance`` is that of one paired
        fold difference, both sources together.
    """
    parts = _parts(examples)
    found = _both_sources(parts, *_dispersion(parts), folds)
    diagonal = np.eye(len(found.mean), dtype=np.bool_)
    return Posterior(
        mean=found.mean,
        scale=np.where(diagonal & (found.cells > 0), 0.0, found.scale),
        degrees_of_freedom=np.where(diagonal, 1.0, found.degrees_of_freedom),
        variance=np.where(diagonal, 0.0, found.variance),
        cells=found.cells,
        lasting=np.where(diagonal, 0.0, found.lasting),
    )


def scores_by_example(examples: ExampleScores, folds: int) -> Posterior:
    """The true score of every row, ``(rows,)``, from its examples.

    What trainings contribute to a score is taken to be half of what they contribute to its differences from others, as
    for rows whose luck is their own. Luck that all rows have in common shows in the scatter of a row's own folds, which
    is weighed against that by its few degrees of freedom.
    """
    rows = len(examples.values)
    parts = _parts(examples)
    among = _both_sources(parts, *_dispersion(parts), folds)
    # against a row that is wrong about everything, differences are scores
    nothing = np.zeros((1, *examples.values.shape[1:]))
    parts = _parts(replace(examples, values=np.concatenate([examples.values, nothing])))
    own, own_df = _plain_dispersion(parts)
    others = ~np.eye(rows, dtype=np.bool_) & np.isfinite(among.scale)
    counted = np.maximum(others.sum(axis=1), 1)
    luck = np.where(others, among.training, 0.0).sum(axis=1) / counted / 2.0
    per_cell = parts.per_cell[:rows, rows]
    prior = VariancePrior(
        variance=1.0 + luck / np.where(per_cell > 0, per_cell, 1.0),
        degrees_of_freedom=np.where(others, among.ratio_df, 0.0).sum(axis=1) / counted,
        most=np.array(np.inf),
    )
    ratio, ratio_df = (np.full(part.shape, fill) for part, fill in ((own, np.nan), (own_df, 0.0)))
    ratio[:rows, rows], ratio_df[:rows, rows] = shrink_variance(own[:rows, rows], own_df[:rows, rows], prior)
    found = _both_sources(parts, ratio, ratio_df, folds)
    return Posterior(*(getattr(found, field.name)[:rows, rows] for field in fields(Posterior)))


def dispersion(examples: ExampleScores) -> Array:
    """Variance of fold differences over what their examples explain, ``(rows, rows)``, of each pair from its own cells:
    1 where examples explain it, more where trainings add to it, NaN where nothing tells."""
    return _plain_dispersion(_parts(examples))[0]


@dataclass(frozen=True)
class _BothSources(Posterior):
    """A posterior with what it was made of: ``training``, the variance B of one cell that trainings contribute, and the
    degrees of freedom of the ratio behind it."""

    training: Array
    ratio_df: Array


def _both_sources(parts: _Parts, ratio: Array, ratio_df: Array, folds: int) -> _BothSources:
    """What examples and trainings contribute, put together.

    Args:
        parts: sums over examples.
        ratio, ratio_df: ``(rows, rows)``, S^2 over what examples explain, and its degrees of freedom; NaN if unknown.
        folds: the k of k-fold.
    """
    cells, per_cell = parts.cells, parts.per_cell
    count = np.maximum(cells, 1)
    differences = np.where(parts.shared, parts.differences, 0.0)
    training = np.nan_to_num(np.maximum(ratio - 1.0, 0.0)) * per_cell
    rho = training_correlation(folds)
    share = 1.0 / count + rho / (1.0 - rho)
    from_examples = (parts.within.sum(axis=-1) + parts.between) / count**2
    total = np.maximum(from_examples + share * training, parts.resolution / count)
    # Satterthwaite: each part's square over its degrees of freedom; of the second it is the ratio that is uncertain
    repeats = np.maximum(cells / folds, 1.0)
    example_df = 2.0 * parts.within.sum(axis=-1) ** 2 / np.maximum(parts.fourth.sum(axis=-1), 1e-300) / repeats
    uncertain = from_examples**2 / np.maximum(example_df, 1.0)
    uncertain += (share * np.nan_to_num(ratio) * per_cell) ** 2 / np.maximum(ratio_df, 1.0)
    df = np.where(uncertain > 0, total**2 / np.where(uncertain > 0, uncertain, 1.0), 1.0)
    lasting = _lasting_share(parts, folds) * per_cell / folds + rho / (1.0 - rho) * training
    unknown = (cells == 0) | np.isnan(ratio)
    return _BothSources(
        mean=differences.sum(axis=-1) / count,
        scale=np.where(unknown, np.inf, np.sqrt(total)),
        degrees_of_freedom=np.maximum(np.where(unknown, 1.0, df), 1.0),
        variance=np.where(unknown, np.nan, np.maximum(per_cell + training, parts.resolution)),
        cells=cells,
        lasting=np.where(unknown, np.nan, np.minimum(lasting, total)),
        training=training,
        ratio_df=ratio_df,
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """Sums over examples, per pair and cell.

    Attributes:
        scores: ``(rows, columns)``, NaN where not trained.
        repeat: ``(columns,)``.
        shared: ``(rows, rows, columns)``, whether both have the cell.
        within: ``(rows, rows, columns)``, variance of the mean difference of one cell that its examples explain; 0
            where not shared.
        fourth: the same of the fourth powers of the groups' parts.
        between: ``(rows, rows)``, twice the sum over pairs of shared cells of different repeats of the covariance that
            their common groups explain.
        resolution: variance of one fold difference that cannot be told from none; 0 where nothing is counted.
    """

    scores: Array
    repeat: NDArray[np.int64]
    shared: NDArray[np.bool_]
    within: Array
    fourth: Array
    between: Array
    resolution: float

    @property
    def differences(self) -> Array:
        """``(rows, rows, columns)``, NaN where not shared."""
        return np.asarray(self.scores[:, None, :] - self.scores[None, :, :])

    @property
    def cells(self) -> NDArray[np.int64]:
        """``(rows, rows)``, shared cells."""
        return np.asarray(self.shared.sum(axis=-1), dtype=np.int64)

    @property
    def per_cell(self) -> Array:
        """``(rows, rows)``, mean of ``within`` over the shared cells; 0 without any."""
        return np.asarray(self.within.sum(axis=-1) / np.maximum(self.cells, 1))


def _parts(examples: ExampleScores) -> _Parts:
    scores, columns = examples.cell_scores(), examples.columns
    seen = ~np.isnan(scores)
    shared = seen[:, None, :] & seen[None, :, :]
    _, member = np.unique(examples.groups, return_inverse=True)
    within, fourth = np.zeros(shared.shape), np.zeros(shared.shape)
    between = np.zeros(shared.shape[:2])
    sums, sizes = list[tuple[int, NDArray[np.int64], Array]](), list[int]()
    for column, (repeat, fold) in enumerate(columns):
        held_out = np.flatnonzero(examples.folds[repeat] == fold)
        residuals = np.nan_to_num(examples.values[:, repeat, held_out] - scores[:, column, None])
        groups, place = np.unique(member[held_out], return_inverse=True)
        count = len(groups)
        of_group = np.zeros((len(scores), count))
        np.add.at(of_group.T, place, residuals.T)
        # as a sample variance has n - 1: one mean was fitted to the fold
        of_group *= np.sqrt(count / max(count - 1, 1)) / len(held_out)
        within[..., column] = _gram(of_group, of_group) * shared[..., column]
        fourth[..., column] = _fourth_powers(of_group) * shared[..., column]
        for other, (its_repeat, its_groups, its_sums) in enumerate(sums):
            if its_repeat != repeat:
                _, mine, its = np.intersect1d(groups, its_groups, assume_unique=True, return_indices=True)
                both = shared[..., column] & shared[..., other]
                between += 2.0 * _gram(of_group[:, mine], its_sums[:, its]) * both
        sums.append((repeat, groups, of_group))
        sizes.append(len(held_out))
    repeats = np.array([repeat for repeat, _ in columns], dtype=np.int64)
    resolution = 2.0 / 12.0 / float(np.median(sizes)) ** 2 if examples.counted else 0.0
    return _Parts(scores, repeats, shared, within, fourth, between, resolution)


def _gram(first: Array, second: Array) -> Array:
    """Sum over groups of (first_b - first_c)(second_b - second_c), for all rows b, c."""
    product = first @ second.T
    own = np.diagonal(product)
    return np.asarray(own[:, None] + own[None, :] - product - product.T)


def _fourth_powers(sums: Array) -> Array:
    """Sum over groups of (sum_b - sum_c)^4, for all rows b, c, by the binomial theorem."""
    square = sums**2
    own, odd, even = (square**2).sum(axis=1), (square * sums) @ sums.T, square @ square.T
    return np.asarray(np.maximum(own[:, None] + own[None, :] - 4.0 * (odd + odd.T) + 6.0 * even, 0.0))


def _plain_dispersion(parts: _Parts) -> tuple[Array, Array]:
    """Between-fold variance over what examples explain, and its degrees of freedom: of each pair from its own cells.

    NaN and 0 where no repeat has two of them, or where there is nothing to explain.
    """
    per_cell, differences = parts.per_cell, parts.differences
    squares, own = np.zeros(per_cell.shape), np.zeros(per_cell.shape)
    for repeat in np.unique(parts.repeat):
        mine = parts.repeat == repeat
        shared = parts.shared[..., mine]
        count = shared.sum(axis=-1)
        part = np.where(shared, differences[..., mine], 0.0)
        centre = part.sum(axis=-1) / np.maximum(count, 1)
        squares += np.where(shared, (part - centre[..., None]) ** 2, 0.0).sum(axis=-1)
        own += np.maximum(count - 1, 0)
    usable = (own > 0) & (per_cell > 0)
    ratio = np.where(usable, squares / np.where(usable, own * per_cell, 1.0), np.nan)
    return ratio, np.where(usable, own, 0.0)


def _dispersion(parts: _Parts) -> tuple[Array, Array]:
    """As :func:`_plain_dispersion`, shrunk over all pairs; NaN where neither the pair nor the study tells."""
    ratio, own = _plain_dispersion(parts)
    upper = np.triu_indices(len(ratio), 1)
    prior = fit_variance_prior(ratio[upper], own[upper], most=residual_degrees_of_freedom(parts.scores))
    shrunk, df = shrink_variance(ratio, own, prior.over(2))
    # no disagreement at all: nothing to explain, and nothing that a training moved
    alike = (parts.cells > 1) & (parts.per_cell == 0)
    return np.where(alike, 1.0, shrunk), np.where(alike, parts.cells - 1.0, df)


def _lasting_share(parts: _Parts, folds: int) -> float:
    """Of what examples contribute, the part that stays however often they are tested: from repeats, where there are.

    The covariance between repeats over the variance within them, over all pairs that have whole repeats.
    """
    upper = np.triu_indices(len(parts.scores), 1)
    cells = parts.cells[upper]
    whole = (cells % folds == 0) & (cells > folds)
    if not whole.any():
        return _LASTING_SHARE
    repeats = cells[whole] / folds
    covariance = (parts.between[upper][whole] / (repeats - 1.0)).sum()
    return float(np.clip(covariance / max(parts.within.sum(axis=-1)[upper][whole].sum(), 1e-300), 0.0, 1.0))
