"""What a study looks like: data for each figure, computed from frames, and the drawing of it.

The floor under the report and the dashboard, which show the same figures in the same words and colours. Each figure is
a pure ``*_data`` over the study's frames and its verdict, and a ``draw_*`` that only draws. Knows neither where a page
is read nor how a cell is trained: pandas, matplotlib and scikit-learn (one figure), and none of what training needs.
"""

from lora_search.plots.figures import figures
from lora_search.plots.folds import draw_folds, folds_data
from lora_search.plots.importance import draw_importance, importance_data
from lora_search.plots.ranks import draw_ranks, ranks_data
from lora_search.plots.tradeoff import draw_tradeoff, parameters_data, time_data

__all__ = [
    "draw_folds",
    "draw_importance",
    "draw_ranks",
    "draw_tradeoff",
    "figures",
    "folds_data",
    "importance_data",
    "parameters_data",
    "ranks_data",
    "time_data",
]
