"""Trials that racing stopped, which may be better than any that was trained to the end.

Racing stops a trial when it is unlikely to change the verdict, not when it is shown to be no better. So a trial
trained to the end is "not worse than the best" only if it is so against the stopped ones too, as far as their few
cells tell: a verdict that is sure but for a stopped trial is not sure, and that trial is *readmitted*, to be given the
cells it lacks.

What is believed of a trial with few cells is its level, shrunk toward the study's mean (see ``levels``): else the
luckiest of those stopped after a fold or two would always be in the way.
"""

from __future__ import annotations

import numpy as np

from lora_search.statistics.comparison import Posterior
from lora_search.statistics.levels import fit_levels
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.question import Question
from lora_search.statistics.standing import NOT_WORSE, Standing, recommend, standing


def rivalries(matrix: ScoreMatrix, everyone: ScoreMatrix, folds: int) -> tuple[Posterior, tuple[int, ...]]:
    """Every trial trained to the end against every other, and against every stopped one.

    Args:
        matrix: the n trials trained to the end.
        everyone: those and the s stopped ones.
        folds: the k of k-fold.

    Returns:
        posteriors ``(n + s, n)``, entry [b, c] about score(b) - score(c); and the n + s trial numbers.
    """
    pairs = matrix.pairs(folds)
    stopped = np.flatnonzero(~np.isin(everyone.trials, matrix.trials))
    if not stopped.size:
        return pairs, matrix.trials
    own = np.flatnonzero(np.isin(everyone.trials, matrix.trials))
    levels = fit_levels(everyone.scores, everyone.resolution)
    share = levels.trust / np.maximum(levels.cells, 1) + 1.0 / (folds - 1)
    noise = np.where(np.isnan(levels.variance), np.inf, share * levels.variance)
    seen = ~np.isnan(everyone.scores)
    against = Posterior(
        mean=levels.believed[stopped][:, None] - levels.believed[own],
        scale=np.sqrt(noise[stopped][:, None] + noise[own]),
        degrees_of_freedom=np.maximum(
            np.minimum(levels.degrees_of_freedom[stopped][:, None], levels.degrees_of_freedom[own]), 1.0
        ),
        variance=levels.variance[stopped][:, None] + levels.variance[own],
        cells=(seen[stopped][:, None] & seen[own]).sum(axis=-1),
        lasting=(levels.variance[stopped][:, None] + levels.variance[own]) / (folds - 1),
    )
    numbers = (*matrix.trials, *(everyone.trials[row] for row in stopped))
    return pairs.stacked_on(against), numbers


def trial_to_readmit(
    matrix: ScoreMatrix,
    pairs: Posterior,
    numbers: tuple[int, ...],
    question: Question,
    looks: int = 1,
    result: Standing | None = None,
) -> int | None:
    """Number of the stopped trial that alone keeps a verdict from being decided: the most likely to beat what would
    be recommended by more than the margin. None where the verdict is open anyway, or decided.

    Args:
        matrix: the trials trained to the end.
        pairs, numbers: of :func:`rivalries`.
        question: whose margin and confidence count. looks: as in :func:`standing.standing`.
        result: of that, for these pairs, where it is at hand.
    """
    count = len(matrix.trials)
    if len(numbers) == count:
        return None
    among_themselves = standing(pairs.first(count), question.margin, question.confidence, looks)
    chosen, _, decided = recommend(among_themselves.status, matrix.levels, matrix.parameters, matrix.seconds)
    result = result or standing(pairs, question.margin, question.confidence, looks)
    if not decided or result.status[chosen] == NOT_WORSE:
        return None
    return numbers[int(result.against[chosen])]


def most_promising(stopped: ScoreMatrix) -> int | None:
    """Number of the trial to readmit where all that were to be trained to the end failed; None without any."""
    if not stopped.trials:
        return None
    return stopped.trials[int(fit_levels(stopped.scores, stopped.resolution).believed.argmax())]
