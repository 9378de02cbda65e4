"""From a study folder to pictures and a page: reads frames and the verdict, knows nothing of models or training.

Opens on any laptop: pandas, matplotlib, scikit-learn (one figure) and jinja2, and none of what training needs.
"""

from lora_search.reporting.figures import figures
from lora_search.reporting.folds import draw_folds, folds_data
from lora_search.reporting.importance import draw_importance, importance_data
from lora_search.reporting.page import render_report, write_report
from lora_search.reporting.ranks import draw_ranks, ranks_data
from lora_search.reporting.tradeoff import draw_tradeoff, parameters_data, time_data

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
    "render_report",
    "time_data",
    "write_report",
]
