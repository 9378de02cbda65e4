"""Scores of predictions, through scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def score_predictions(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, float]:
    """Every metric an experiment may name, and the log loss.

    Args:
        labels: (examples,), indices of classes.
        probabilities: (examples, classes), rows sum to 1.

    Returns:
        accuracy, macro_f1 (unweighted mean over all classes, 0 for a class neither present nor predicted),
        matthews_correlation (Gorodkin 2004; 0 where all is one class), and log_loss (mean negative log likelihood,
        nats, probabilities clipped at 1e-7).
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    # scikit-learn warns where there is only one class among labels and predictions
    alike = len(np.union1d(labels, predicted)) < 2
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)),
        "matthews_correlation": 0.0 if alike else float(matthews_corrcoef(labels, predicted)),
        "log_loss": float(-np.log(np.clip(likelihood, 1e-7, None)).mean()),
    }
