"""What a page that stands alone keeps of the answers a server would give: judgements and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_search.errors import StudyError
from lora_search.plots.landscape import Terrain
from lora_search.plots.predicted import predictions_view
from lora_search.plots.web import judged_view
from lora_search.statistics.judging import Judge
from lora_search.store.reader import StudyTables

MOST_JUDGED_TRIALS = 120
MOST_LABELS_KEPT = 400_000
MOST_LETTERS_KEPT = 2_000_000


def judgement_grid(
    tables: StudyTables, stops: Mapping[str, Sequence[float]], asked: Mapping[str, Any]
) -> list[list[dict[str, Any]]] | None:
    """The study judged at every stop of the sliders: ``grid[margin][confidence]``, each a ``judged_view``.

    Args:
        tables: the study.
        stops: ``margins`` and ``confidences``.
        asked: the view of the verdict as it was asked for, which is taken as it is.

    Returns:
        None where the study has more trials than a file should hold judgements of.
    """
    if len(tables.trials) > MOST_JUDGED_TRIALS:
        return None
    judge = Judge(tables)
    terrain = Terrain(tables.trials, tables.cells, tables.experiment.verdict.metric)
    return [
        [
            dict(asked)
            if (margin, confidence) == (asked["margin"], asked["confidence"])
            else judged_view(tables, judge.verdict(margin, confidence).to_dict(), terrain)
            for confidence in stops["confidences"]
        ]
        for margin in stops["margins"]
    ]


def kept_predictions(
    tables: StudyTables, judged: Mapping[str, Any], texts: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Predictions of the named trials and of the highest scores, as many as fit; None where there are none.

    Raises:
        StudyError: the texts are not as many as the examples.
    """
    trials = [int(trial) for trial in tables.trials["trial"]]
    scores = dict(zip(trials, judged["score"], strict=True))
    trained = [trial for trial in trials if scores[trial] is not None]
    named = {int(trial) for trial in judged["roles"]}
    trained.sort(key=lambda trial: (trial not in named, -scores[trial], trial))
    try:
        examples = max(1, len(tables.examples()))
        view = predictions_view(tables, trained[: max(4, MOST_LABELS_KEPT // examples)])
    except StudyError:  # a copy of a study without its predictions still has a page
        return None
    if view is not None and texts is not None:
        if len(texts) != examples:
            raise StudyError.about("texts", f"must be those of all {examples} examples", got=len(texts))
        letters = MOST_LETTERS_KEPT // max(1, len(texts))
        view["texts"] = [text[:letters] for text in texts]
    return view
