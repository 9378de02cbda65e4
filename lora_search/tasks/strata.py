"""Folds of examples of which a label says how they are spread, and not what is answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_search.data import Dataset, Splits
from lora_search.data.examples import merged_strata
from lora_search.errors import DataError

_LEAST_OF_A_STRATUM = 10


def spread_over_folds(dataset: Dataset, *, noun: str, folds: int, holdout: float, seed: int) -> Splits:
    """Stratified by ``dataset.labels``, rare ones together, where groups allow it.

    Args:
        dataset: the examples.
        noun: what one is called, for messages.
        folds, holdout, seed: as in ``Task.split``.

    Raises:
        DataError: too few examples or groups.
    """
    _, strata = np.unique(merged_strata(dataset.labels, max(_LEAST_OF_A_STRATUM, 2 * folds)), return_inverse=True)
    choices: dict[str, Any] = {"folds": folds, "holdout": holdout, "seed": seed}
    try:
        return Splits.make(strata, dataset.groups, **choices)
    except DataError:
        # a stratum in one group is no reason against folds; what is one is said of the examples themselves
        return Splits.make(np.zeros_like(strata), dataset.groups, label_names=[noun], **choices)
