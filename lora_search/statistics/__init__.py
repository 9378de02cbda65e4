"""From scores to a verdict: paired comparison, selection, racing, budget, bias correction.

Frames and arrays in, dataclasses out. Knows neither how a cell is trained nor where it is stored.
"""

from lora_search.statistics.budget import CellRequest, more_cells_needed, next_cells
from lora_search.statistics.comparison import Posterior, VariancePrior, correlated_t, fit_variance_prior, pairwise
from lora_search.statistics.estimation import CorrectedScore, PooledPredictions, corrected_score, pool_predictions
from lora_search.statistics.examples import ExampleScores, Recorded
from lora_search.statistics.levels import believed_scores
from lora_search.statistics.matrix import ScoreMatrix, score_matrix
from lora_search.statistics.question import Question
from lora_search.statistics.racing import Elimination, Race, race
from lora_search.statistics.selection import decide
from lora_search.statistics.standing import Standing, standing
from lora_search.statistics.two_sources import pairwise_by_example, scores_by_example
from lora_search.statistics.verdict import Comparison, TrialSummary, Verdict

__all__ = [
    "CellRequest",
    "Comparison",
    "CorrectedScore",
    "Elimination",
    "ExampleScores",
    "PooledPredictions",
    "Posterior",
    "Question",
    "Race",
    "Recorded",
    "ScoreMatrix",
    "Standing",
    "TrialSummary",
    "VariancePrior",
    "Verdict",
    "believed_scores",
    "corrected_score",
    "correlated_t",
    "decide",
    "fit_variance_prior",
    "more_cells_needed",
    "next_cells",
    "pairwise",
    "pairwise_by_example",
    "pool_predictions",
    "race",
    "score_matrix",
    "scores_by_example",
    "standing",
]
