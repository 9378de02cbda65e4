"""Baselines without a neural network: the shares of the labels, and logistic regression on words."""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch

from lora_search.store.records import CellResult
from lora_search.study.preparation import Prepared
from lora_search.tasks import Objective, task_of
from lora_search.training.cell import Cell, Tally, cell_result

_INVERSE_REGULARIZATION = 10.0
"""C of the logistic regression: what TF-IDF rows, which are of length 1, are commonly given; not searched."""
_MOST_ITERATIONS = 2000
_LEAST_PROBABILITY = 1e-7
"""Of a label that no training example has, so that its log is a number."""


def majority(prepared: Prepared, cell: Cell) -> tuple[CellResult, int]:
    """Answers every question with the shares of the answers in the training examples: what knowing nothing scores.

    Returns:
        its result, and how many numbers it learned, which are counted as none.
    """
    start = time.perf_counter()
    objective = _objective(prepared)
    targets = objective.targets
    asked = targets[objective.rows(cell.train)].ravel()
    counts = np.bincount(asked[asked >= 0], minlength=len(prepared.data.label_names))
    shares = torch.from_numpy(np.maximum(counts / max(1, counts.sum()), _LEAST_PROBABILITY)).float()
    rows = objective.rows(cell.evaluate)
    wanted = torch.from_numpy(targets[rows])
    logits = shares.log().expand(*wanted.shape, -1)
    predicted = objective.predictions(cell.evaluate, list(objective.answers(logits, wanted).numpy()))
    return _result(cell, objective, predicted, start), 0


def tfidf(prepared: Prepared, cell: Cell) -> tuple[CellResult, int]:
    """Logistic regression on TF-IDF of words and pairs of words (sublinear counts, C = 10), of texts as they are.

    Returns:
        its result, and how many numbers it learned.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    start = time.perf_counter()
    objective, labels = _objective(prepared), prepared.data.labels
    model = make_pipeline(
        # whatever stands between spaces is a word: texts of signs alone have some too
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b|[^\w\s]"),
        LogisticRegression(C=_INVERSE_REGULARIZATION, max_iter=_MOST_ITERATIONS),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_texts(prepared, cell.train), labels[cell.train])
    predicted = np.zeros((len(cell.evaluate), len(prepared.data.label_names)), dtype=np.float32)
    predicted[:, model.classes_] = model.predict_proba(_texts(prepared, cell.evaluate))
    learned = model[-1]
    return _result(cell, objective, predicted, start), int(learned.coef_.size + learned.intercept_.size)


def _texts(prepared: Prepared, examples: np.ndarray) -> list[str]:
    """The texts of some examples, of a pair one after the other."""
    dataset = prepared.dataset
    if dataset.pairs is None:
        return [dataset.texts[example] for example in examples]
    return [f"{dataset.texts[example]}\n{dataset.pairs[example]}" for example in examples]


def _objective(prepared: Prepared) -> Objective:
    return task_of(prepared.experiment.model.task).objective(prepared.data)


def _result(cell: Cell, objective: Objective, predicted: np.ndarray, start: float) -> CellResult:
    seconds = time.perf_counter() - start
    return cell_result(
        cell, objective, Tally(), predicted, seconds=seconds, wall_seconds=seconds, pack=-1, pack_cells=1
    )
