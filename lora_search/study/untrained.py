"""Baselines without a neural network: what knows only how often each answer occurs, and a linear model on words."""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch

from lora_search.store.records import CellResult
from lora_search.study.preparation import Prepared
from lora_search.tasks import Guesses, Objective, Task, as_trained_on, task_of
from lora_search.training.cell import Cell, Tally, cell_result

_INVERSE_REGULARIZATION = 10.0
"""C of the logistic regression: what TF-IDF rows, which are of length 1, are commonly given; not searched."""
_MOST_ITERATIONS = 2000
_RIDGE = 1.0
"""Penalty of the ridge regression on standardised numbers, scikit-learn's own; not searched."""


def majority(prepared: Prepared, cell: Cell) -> tuple[CellResult, int]:
    """Answers every question with the shares of the answers in the training examples, or with their mean: what knowing
    nothing scores.

    Returns:
        its result, and how many numbers it learned, which are counted as none.
    """
    start = time.perf_counter()
    objective = _objective(prepared, cell)
    assert isinstance(objective, Guesses), "no others have baselines"
    rows = objective.rows(cell.evaluate)
    answers = objective.answers(objective.guess(cell.train, rows), torch.from_numpy(objective.targets[rows]))
    predicted = objective.predictions(cell.evaluate, list(answers.numpy()))
    return _result(cell, objective, predicted, start), 0


def tfidf(prepared: Prepared, cell: Cell) -> tuple[CellResult, int]:
    """A linear model on TF-IDF of words and pairs of words (sublinear counts), of texts as they are: logistic
    regression (C = 10), one for each label where there may be several; of numbers ridge regression (penalty 1).

    Returns:
        its result, and how many numbers it learned.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    start = time.perf_counter()
    objective = _objective(prepared, cell)
    of = _task(prepared).on_words
    logistic = LogisticRegression(C=_INVERSE_REGULARIZATION, max_iter=_MOST_ITERATIONS)
    model = make_pipeline(
        # whatever stands between spaces is a word: texts of signs alone have some too
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b|[^\w\s]"),
        {"numbers": Ridge(_RIDGE), "labels": OneVsRestClassifier(logistic)}.get(of or "", logistic),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Label .* is present in all training examples", UserWarning)
        model.fit(_texts(prepared, cell.train), objective.targets[cell.train])
    asked = _texts(prepared, cell.evaluate)
    learned = [each for each in getattr(model[-1], "estimators_", [model[-1]]) if hasattr(each, "coef_")]
    if of != "classes":
        answers = model.predict(asked) if of == "numbers" else model.predict_proba(asked)
        predicted = objective.predictions(cell.evaluate, list(answers))
    else:
        predicted = np.zeros((len(cell.evaluate), len(prepared.data.label_names)), dtype=np.float32)
        predicted[:, model.classes_] = model.predict_proba(asked)
    return _result(cell, objective, predicted, start), sum(
        each.coef_.size + np.size(each.intercept_) for each in learned
    )


def _texts(prepared: Prepared, examples: np.ndarray) -> list[str]:
    """The texts of some examples, of a pair one after the other."""
    dataset = prepared.dataset
    if dataset.pairs is None:
        return [dataset.texts[example] for example in examples]
    return [f"{dataset.texts[example]}\n{dataset.pairs[example]}" for example in examples]


def _task(prepared: Prepared) -> Task:
    return task_of(prepared.experiment.model.task)


def _objective(prepared: Prepared, cell: Cell) -> Objective:
    return as_trained_on(_task(prepared).objective(prepared.data), cell.train)


def _result(cell: Cell, objective: Objective, predicted: np.ndarray, start: float) -> CellResult:
    seconds = time.perf_counter() - start
    return cell_result(
        cell, objective, Tally(), predicted, seconds=seconds, wall_seconds=seconds, pack=-1, pack_cells=1
    )
