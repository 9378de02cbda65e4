"""How much better is one trial than another, and how sure is that: the correlated t posterior on paired differences.

Cross-validation folds share training examples, so their scores are correlated and the usual t interval is too narrow.
Nadeau and Bengio (2003) widen it: with J paired differences of mean m and sample variance S^2, and rho = 1 / folds,

    delta ~ m + sqrt((1/J + rho/(1 - rho)) S^2) t(J - 1)

which Corani and Benavoli (2015) read as a posterior (also in Benavoli et al. 2017). The second term does not
shrink with more repeats: no number of trainings makes a small dataset large.

**What the folds share.** The correlation is theirs for training on the same examples. They are not tested on the same
ones, so of S^2 only the part that trainings contribute is correlated, a share s of it:

    scale^2 = (1/J + s rho/(1 - rho)) S^2

Scores of folds do not tell the two apart (:mod:`two_sources` does, from predictions), so s = 1, Nadeau and Bengio's own
formula, is what a verdict goes by without predictions. It is too wide wherever examples contribute, and by how much
depends on the data; who knows s, for a table of scores whose predictions are lost, may say it.

**Few cells.** With 5 folds, S^2 has 4 degrees of freedom, and one lucky S^2 among the pairs of a study would
decide it. All pairs of a study measure much the same noise, so each S^2 is shrunk toward the pooled variance s0^2 as in
Smyth (2004, section 3): S~^2 = (d0 s0^2 + f S^2) / (d0 + f) with d0 + f degrees of freedom, where f = J - 1.
The pooled variance thus counts as d0 pseudo-observations. d0 is estimated, not chosen: it is large when the pairs'
log variances scatter no more than sampling explains, and small when some pairs really are noisier. Pairs share
trials, so there is less to learn than their number suggests: d0 + f never exceeds the residual degrees of freedom of
the whole table (observed cells - trials - columns + 1). With two trials that is f itself, d0 is 0, and the plain
formula remains.

Scores are arrays ``(..., trials, cells)``: one row per trial, one column per (repeat, fold), NaN where a cell was not
trained; leading axes are independent studies. This module knows nothing of frames, margins or verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SMALLEST_SHARE = 1e-2
"""The least share of the median variance that enters the estimate of d0: rounded scores tie by chance."""


@dataclass(frozen=True)
class Posterior:
    """What is known about true differences (or true scores): t-distributed, elementwise over arrays of one shape.

    Attributes:
        mean: centre, in metric units; 0 where nothing was observed.
        scale: scale of the t distribution; infinite where the noise is unknown, 0 where no noise was seen at all.
        degrees_of_freedom: of the t distribution, at least 1.
        variance: the (shrunk) variance S^2 of one paired difference; NaN where unknown.
        cells: number of paired cells behind each element.
        lasting: the part of ``scale`` squared that no number of further repeats removes: the luck of the dataset.
    """

    mean: Array
    scale: Array
    degrees_of_freedom: Array
    variance: Array
    cells: NDArray[np.int64]
    lasting: Array

    def scale_after(self, cells: int) -> Array:
        """The scale that is to be expected once each element has at least this many paired cells.

        What lasts stays, the rest shrinks as 1 / cells. Infinite where the noise is unknown.
        """
        share = self.cells / np.maximum(np.maximum(self.cells, cells), 1)
        with np.errstate(invalid="ignore"):
            passing = np.maximum(self.scale**2 - self.lasting, 0.0)
            return np.asarray(np.where(np.isfinite(self.scale), np.sqrt(self.lasting + share * passing), np.inf))

    def t_statistic(self, bound: float | Array) -> Array:
        """Distance from the centre up to ``bound`` in scales; infinite where the scale is 0 (the bound is included)."""
        gap = np.asarray(bound - self.mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.scale > 0, gap / self.scale, np.where(gap >= 0, np.inf, -np.inf)))

    def probability_at_most(self, bound: float | Array) -> Array:
        """P(true value <= bound); 0.5 where nothing is known about the noise."""
        return np.asarray(special.stdtr(self.degrees_of_freedom, self.t_statistic(bound)))

    def quantile(self, probability: float | Array) -> Array:
        """The value below which the truth lies with this probability; infinite where the noise is unknown."""
        if np.ndim(probability) == 0:  # of thousands of pairs few differ in their degrees of freedom
            distinct, which = self._freedoms
            quantile = special.stdtrit(distinct, probability)[which].reshape(np.shape(self.degrees_of_freedom))
        else:
            quantile = special.stdtrit(self.degrees_of_freedom, probability)
        with np.errstate(invalid="ignore"):
            return np.asarray(self.mean + self.scale * quantile)

    @cached_property
    def _freedoms(self) -> tuple[Array, NDArray[np.intp]]:
        """The degrees of freedom that occur, and which of them each element has."""
        distinct, which = np.unique(self.degrees_of_freedom, return_inverse=True)
        return distinct, which.ravel()

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Central interval holding the truth with probability ``level``."""
        tail = (1.0 - level) / 2.0
        return self.quantile(tail), self.quantile(1.0 - tail)

    def stacked_on(self, below: Posterior) -> Posterior:
        """These rows and then those of ``below``, along the last axis but one."""
        return Posterior(
            *(np.concatenate([getattr(part, field.name) for part in (self, below)], axis=-2) for field in fields(self))
        )

    def at(self, place: Any) -> Posterior:
        """The elements at an index, as numpy takes it."""
        return Posterior(*(getattr(self, field.name)[place] for field in fields(self)))

    def first(self, rows: int) -> Posterior:
        """The first rows, along the last axis but one."""
        return Posterior(*(getattr(self, field.name)[..., :rows, :] for field in fields(self)))


@dataclass(frozen=True)
class VariancePrior:
    """What the other pairs say about a variance: ``degrees_of_freedom`` (d0) pseudo-observations of ``variance``.

    ``most`` bounds d0 + f, the degrees of freedom any one pair may end up with.
    """

    variance: Array
    degrees_of_freedom: Array
    most: Array

    def over(self, axes: int) -> VariancePrior:
        """The same prior with that many axes appended, to broadcast against what it applies to."""
        wider = (..., *[None] * axes)
        return VariancePrior(self.variance[wider], self.degrees_of_freedom[wider], self.most[wider])


def correlated_t(differences: Array, folds: int, prior: VariancePrior | None = None) -> Posterior:
    """Posterior of the mean of correlated cross-validation differences.

    Args:
        differences: ``(..., cells)`` paired differences in metric units; NaN for a cell one of the two lacks.
        folds: the k of k-fold, so that rho = 1 / k.
        prior: variance learned from other pairs, broadcast against the leading axes; None for the plain formula.

    Returns:
        one posterior per leading element.

    Source: Nadeau and Bengio 2003, corrected resampled t; Corani and Benavoli 2015; shrinkage Smyth 2004, section 3.
    """
    mean, variance, cells = _moments(differences)
    own = np.maximum(cells - 1, 0).astype(np.float64)
    if prior is not None:
        variance, own = shrink_variance(variance, own, prior)
    return _posterior(mean, variance, own, cells, folds)


def pairwise(
    scores: Array, folds: int, *, shrink: bool = True, resolution: float = 0.0, training_share: float = 1.0
) -> Posterior:
    """Every trial against every trial.

    Args:
        scores: ``(..., trials, cells)``; NaN where a trial lacks the cell. A pair uses the cells both have.
        folds: the k of k-fold.
        shrink: shrink each pair's variance toward the pooled variance of all pairs.
        resolution: least variance of one difference that can be told from none (see ``matrix``): scores of few examples
            tie by chance.
        training_share: of the variance between folds, what trainings contribute; 1 assumes the least.

    Returns:
        posterior arrays ``(..., trials, trials)``; entry [b, c] is about score(b) - score(c).
    """
    differences = scores[..., :, None, :] - scores[..., None, :, :]
    mean, variance, cells = _moments(differences)
    own = np.maximum(cells - 1, 0).astype(np.float64)
    trials = scores.shape[-2]
    if shrink and trials > 2:
        upper = np.triu_indices(trials, 1)
        prior = fit_variance_prior(variance[..., *upper], own[..., *upper], most=residual_degrees_of_freedom(scores))
        variance, own = shrink_variance(variance, own, prior.over(2))
    diagonal = np.eye(trials, dtype=np.bool_)
    variance = np.where(diagonal, 0.0, np.maximum(variance, resolution))
    return _posterior(mean, variance, own, cells, folds, training_share)


def fit_variance_prior(variances: Array, degrees_of_freedom: Array, *, most: Array | float = np.inf) -> VariancePrior:
    """Empirical-Bayes prior for a family of sample variances (Smyth 2004, section 6.2).

    Under the model S_g^2 ~ s0^2 F(f_g, d0), e_g = log S_g^2 - digamma(f_g/2) + log(f_g/2) has mean log s0^2 -
    digamma(d0/2) + log(d0/2) and variance trigamma(f_g/2) + trigamma(d0/2); both are matched.

    Args:
        variances: ``(..., pairs)`` sample variances; zero and NaN are left out (two identical trials do not tell the
            noise).
        degrees_of_freedom: f of each, same shape.
        most: upper bound for d0 + f.

    Returns:
        prior over the leading axes. Without a usable variance it has 0 degrees of freedom and changes nothing.
    """
    if not variances.shape[-1]:  # of one trial there are no pairs
        nothing = np.zeros(variances.shape[:-1])
        return VariancePrior(nothing, nothing, np.broadcast_to(np.asarray(most, dtype=np.float64), nothing.shape))
    usable = (degrees_of_freedom > 0) & (np.nan_to_num(variances) > 0)
    count = usable.sum(axis=-1)
    half = np.where(usable, degrees_of_freedom, 1.0) / 2.0
    logs = np.log(_floored(variances, usable)) - special.digamma(half) + np.log(half)
    safe = np.maximum(count, 1)
    centre = np.where(usable, logs, 0.0).sum(axis=-1) / safe
    spread = np.where(usable, (logs - centre[..., None]) ** 2, 0.0).sum(axis=-1) / np.maximum(count - 1, 1)
    excess = spread - np.where(usable, special.polygamma(1, half), 0.0).sum(axis=-1) / safe
    known = excess > 0
    half_prior = inverse_trigamma(np.where(known, excess, 1.0))
    correction = np.where(known, special.digamma(half_prior) - np.log(half_prior), 0.0)
    prior_df = np.where(known, 2.0 * half_prior, np.inf)
    return VariancePrior(
        variance=np.asarray(np.exp(centre + correction)),
        degrees_of_freedom=np.asarray(np.where(count > 1, prior_df, 0.0)),
        most=np.broadcast_to(np.asarray(most, dtype=np.float64), centre.shape),
    )


def inverse_trigamma(values: Array) -> Array:
    """x with trigamma(x) = value, for value > 0, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    target = np.clip(np.asarray(values, dtype=np.float64), 1e-7, 1e7)
    x = 0.5 + 1.0 / target
    for _ in range(12):
        slope = special.polygamma(1, x)
        x = x + slope * (1.0 - slope / target) / special.polygamma(2, x)
    return np.asarray(x)


def _moments(differences: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean (0 without cells), sample variance (NaN below two cells) and number of cells over the last axis."""
    seen = ~np.isnan(differences)
    cells = seen.sum(axis=-1)
    mean = np.where(seen, differences, 0.0).sum(axis=-1) / np.maximum(cells, 1)
    squares = np.where(seen, (differences - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    variance = np.where(cells > 1, squares / np.maximum(cells - 1, 1), np.nan)
    # equal differences leave rounding dust, not variance
    dust = (1e-12 * np.maximum(np.abs(mean), 1e-3)) ** 2
    return np.asarray(mean), np.asarray(np.where(variance <= dust, 0.0, variance)), np.asarray(cells, dtype=np.int64)


def shrink_variance(variance: Array, own: Array, prior: VariancePrior) -> tuple[Array, Array]:
    """Posterior variance and degrees of freedom: (d0 s0^2 + f S^2) / (d0 + f) and d0 + f (Smyth 2004, section 3)."""
    borrowed = np.minimum(prior.degrees_of_freedom, np.maximum(prior.most - own, 0.0))
    total = own + borrowed
    # without a bound, variances that are all alike lend without end: what is shrunk is then the prior's
    endless = np.isinf(borrowed)
    lent = np.where(endless, 0.0, borrowed)
    weighted = lent * prior.variance + own * np.where(own > 0, np.nan_to_num(variance), 0.0)
    shrunk = np.where(endless, prior.variance, weighted / np.where(own + lent > 0, own + lent, 1.0))
    return np.asarray(np.where(total > 0, shrunk, np.nan)), np.asarray(total)


def _posterior(
    mean: Array, variance: Array, df: Array, cells: NDArray[np.int64], folds: int, training_share: float = 1.0
) -> Posterior:
    rho = 1.0 / folds
    with np.errstate(invalid="ignore"):
        lasting = training_share * rho / (1.0 - rho) * variance
        scale = np.sqrt(variance / np.maximum(cells, 1) + lasting)
    unknown = np.isnan(variance) | (cells == 0)
    return Posterior(mean, np.where(unknown, np.inf, scale), np.maximum(df, 1.0), variance, cells, lasting)


def residual_degrees_of_freedom(scores: Array) -> Array:
    """Of the additive model score = trial + cell: observed cells - trials - columns + 1, never negative."""
    seen = ~np.isnan(scores)
    columns = seen.any(axis=-2).sum(axis=-1)
    rows = seen.any(axis=-1).sum(axis=-1)
    return np.asarray(np.maximum(seen.sum(axis=(-2, -1)) - rows - columns + 1, 0), dtype=np.float64)


def _floored(variances: Array, usable: Mask) -> Array:
    """Variances raised to a share of their median, and 1 where unusable (so the logarithm exists)."""
    ordered = np.sort(np.where(usable, variances, np.inf), axis=-1)
    middle = np.maximum(usable.sum(axis=-1) - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[..., None], axis=-1)
    floor = np.where(np.isfinite(median), _SMALLEST_SHARE * median, 0.0)
    return np.asarray(np.where(usable, np.maximum(variances, floor), 1.0))
