"""What to train next, and how much more it takes: predictive power of the comparisons still open.

After more cells a paired mean moves, and its interval narrows. Given what has been seen (mean d, scale s, J cells), the
mean over J' cells is t-distributed around d with the variance by which s^2 will have shrunk: the part of the noise that
is common to all cells of a dataset does not move, so it belongs in the final interval and not in this prediction (for
fold scores that leaves S^2 (1/J - 1/J')). From that follow the chances that a comparison will be settled either way,
and from those the chance that the verdict will be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from lora_search.statistics.comparison import Array, Posterior
from lora_search.statistics.examples import Recorded
from lora_search.statistics.matrix import ScoreMatrix, score_matrix
from lora_search.statistics.question import Question
from lora_search.statistics.standing import NOT_WORSE, OPEN, WORSE, Standing, required_probability, standing
from lora_search.statistics.stopped import most_promising, rivalries, trial_to_readmit

_MOST_REPEATS = 60
_LIKELY = 0.5
"""A budget is named when it would settle the verdict more likely than not."""
_EARLY = 0.4
"""Stopping before all repeats are spent takes this share of the error allowed: a verdict that may be taken at any
of four looks is otherwise wrong in 8.6 % of studies at the margin where one look is in 5 % (5 folds)."""
_HOPELESS = 0.1
"""Below this chance of ever settling the verdict, extra cells go to finding the best instead, and not to a trial that
has less of a chance to be it."""
CONTENDERS = 4
"""Where nothing would settle the verdict, the best so far is what is recommended, and one repeat is too few to find it.

With extra repeats for as many of the highest scores, what is recommended at last is 0.1 points below what a full grid
recommends; for 3 of them 0.4, for none 0.7, for 6 no less than for 4 (experiments/audits/replay.py)."""


@dataclass(frozen=True, order=True)
class CellRequest:
    """One training that would help: repeat first, so that a sorted list shares folds between neighbours."""

    repeat: int
    fold: int
    trial: int


@dataclass(frozen=True)
class _Outlook:
    """The verdict as a chain: trials by size; it ends at the first that is not worse, if all before it are worse."""

    order: NDArray[np.int64]
    ends_here: Array
    needed: tuple[int, ...]

    @property
    def decided(self) -> float:
        return float(self.ends_here.sum())


def more_cells_needed(matrix: ScoreMatrix, question: Question) -> int | None:
    """About how many more cells would settle the verdict; None when no number of cells on these data is likely to.

    0 when it is settled. Counts the cells the trials still in question lack to reach a common number of repeats.
    """
    folds, planned = question.folds, question.repeats
    pairs = matrix.pairs(folds)
    result = standing(pairs, question.margin, question.confidence, matrix.looks(folds, planned))
    cells = (~np.isnan(matrix.scores)).sum(axis=1)
    for repeats in range(1, _MOST_REPEATS + 1):
        required = required_probability(question.confidence, matrix.looks(folds, planned, repeats))
        outlook = _outlook(matrix, pairs, result, question, required=required, repeats=repeats)
        if not outlook.needed and outlook.decided == 1.0:
            return 0
        lacking = int(np.maximum(repeats * folds - cells[list(outlook.needed)], 0).sum())
        if lacking and outlook.decided >= _LIKELY:
            return lacking
    return None


def next_cells(
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    question: Question,
    *,
    repeats: int,
    recorded: Recorded | None = None,
    tried: Collection[tuple[int, int, int]] | None = None,
    room: int | None = None,
) -> tuple[CellRequest, ...]:
    """What to train once every trial is complete or stopped by racing.

    First what a stopped trial lacks, if the verdict would be decided but for it or all others failed; then the next
    extra repeat of the finalists, the trials whose comparisons decide the verdict.

    Args:
        trials: the trials frame. cells: the cells frame.
        question: what is asked of them.
        repeats: how many repeats a finalist may have in all.
        recorded: the predictions of the study, to compare by; None compares by the scores of folds.
        tried: (trial, repeat, fold) that were trained, where ``cells`` does not have all of them.
        room: how many of the planned cells may still be trained, where that is limited; one trial is finished whatever
            it says.

    Returns:
        the missing cells of the stopped trial in its planned repeats, or of the finalists in the lowest repeat that one
        of them lacks; empty when the verdict is settled with something to spare, or ``repeats`` is spent.
    """
    folds, planned = question.folds, question.repeats
    matrix = score_matrix(trials, cells, question.metric, recorded=recorded)
    everyone = score_matrix(trials, cells, question.metric, states=("complete", "pruned"))
    # a failed cell was tried: asking for it again would ask forever
    if tried is None:
        tried = set(cells[["trial", "repeat", "fold"]].astype(int).itertuples(index=False, name=None))

    def lacking(numbers: Iterable[int], repeats: Iterable[int]) -> tuple[CellRequest, ...]:
        wanted = (CellRequest(*key) for key in product(repeats, range(folds), numbers))
        return tuple(sorted(cell for cell in wanted if (cell.trial, cell.repeat, cell.fold) not in tried))

    if matrix.trials:
        pairs, rivals = rivalries(matrix, everyone, folds)
        readmitted = trial_to_readmit(matrix, pairs, rivals, question, matrix.looks(folds, planned))
    else:
        readmitted = most_promising(everyone)
    wanted = () if readmitted is None else lacking([readmitted], range(planned))
    if wanted and (room is None or len(wanted) <= room or not matrix.trials):
        return wanted
    rows = finalist_rows(matrix, question, repeats=repeats)
    finalists = [matrix.trials[row] for row in rows]
    return next(filter(None, (lacking(finalists, [repeat]) for repeat in range(repeats))), ())


def finalist_rows(matrix: ScoreMatrix, question: Question, *, repeats: int) -> tuple[int, ...]:
    """Rows of the trials whose further repeats would decide the verdict; none when settled.

    Where even all of them would hardly settle it (below a chance of 1 in 10), the highest scores, one of which is going
    to be the best so far.

    Args as in :func:`next_cells`.
    """
    if len(matrix.trials) < 2:
        return ()
    pairs = matrix.pairs(question.folds)
    result = standing(pairs, question.margin, 1.0 - _EARLY * (1.0 - question.confidence))
    looks = matrix.looks(question.folds, question.repeats, repeats)
    required = required_probability(question.confidence, looks)
    outlook = _outlook(matrix, pairs, result, question, required=required, repeats=repeats)
    if not outlook.needed:
        return ()
    if outlook.decided < _HOPELESS:
        return _contenders(matrix, pairs)
    return _deciding_prefix(outlook, result)


def _contenders(matrix: ScoreMatrix, pairs: Posterior) -> tuple[int, ...]:
    """The highest scores, as far as they may well be the best after all; none where that is one alone."""
    highest = np.argsort(-matrix.levels, kind="stable")[:CONTENDERS]
    as_good = pairs.probability_at_most(0.0)[highest[0], highest]
    rows = [int(row) for row, chance in zip(highest[1:], as_good[1:], strict=True) if chance >= _HOPELESS]
    return tuple(sorted([int(highest[0]), *rows])) if rows else ()


def _outlook(
    matrix: ScoreMatrix,
    pairs: Posterior,
    result: Standing,
    question: Question,
    *,
    required: float,
    repeats: int,
) -> _Outlook:
    """Chances that the verdict ends at each trial once every open comparison has ``repeats * folds`` cells."""
    order = matrix.by_size
    status = result.status[order]
    passes, fails = (status == NOT_WORSE).astype(np.float64), (status == WORSE).astype(np.float64)
    last = int(passes.argmax()) if passes.any() else len(order)
    places = np.flatnonzero(status[:last] == OPEN)
    rows, rivals = order[places], result.against[order[places]]
    passes[places], fails[places] = chances_to_settle(
        pairs, rivals, rows, question.margin, required, repeats * question.folds
    )
    reached = np.cumprod(np.concatenate([[1.0], fails[:-1]]))
    needed = {*rows.tolist(), *rivals.tolist()}
    return _Outlook(order, reached * passes, tuple(sorted(needed)))


def chances_to_settle(
    pairs: Posterior,
    best: int | NDArray[np.integer],
    row: int | NDArray[np.integer],
    margin: float,
    required: float,
    cells: int,
) -> tuple[Array, Array]:
    """Chances that comparisons end as not worse, and as worse, once they have ``cells`` shared cells.

    Args:
        pairs: posteriors of all pairs. best, row: the comparisons, score(best) - score(row).
        margin: accepted loss, in metric units.
        required: posterior probability a claim will need.
        cells: shared cells each will have.

    Returns:
        both, of the shape of ``best`` and ``row``; 0 where further cells say nothing.
    """
    open_ = pairs.at((best, row))
    later = np.maximum(cells, open_.cells)
    scale = open_.scale_after(cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = special.stdtrit(open_.degrees_of_freedom + later - open_.cells, required) * scale
        spread = np.sqrt(np.maximum(open_.scale**2 - scale**2, 0.0))
        told = (open_.cells > 0) & np.isfinite(open_.variance) & (open_.variance > 0) & (spread > 0)
        passes, fails = (
            np.where(told, special.stdtr(open_.degrees_of_freedom, (gap - reach) / spread), 0.0)
            for gap in (margin - open_.mean, open_.mean - margin)
        )
    return passes, fails


def _deciding_prefix(outlook: _Outlook, result: Standing) -> tuple[int, ...]:
    """The smallest open trials that carry most of the chance of a verdict, with what they are compared against."""
    chances = np.cumsum(outlook.ends_here)
    last = int(np.searchsorted(chances, 0.8 * outlook.decided))
    considered = outlook.order[: last + 1]
    rows = {int(row) for row in considered if row in outlook.needed and result.status[row] == OPEN}
    return tuple(sorted(rows | {int(result.against[row]) for row in rows}))
