"""The verdict of a recorded study, with the experiment's own margin and confidence or with others."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

from lora_search.spec import facts
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.doubts import RecordedStudy, doubts, recorded_of
from lora_search.statistics.estimation import CorrectedScore, corrected_score, pool_predictions
from lora_search.statistics.selection import Verdict, decide


def judge(
    study: RecordedStudy,
    margin: float | None = None,
    confidence: float | None = None,
    *,
    corrections: MutableMapping[int, CorrectedScore | None] | None = None,
) -> Verdict:
    """Decide from what is recorded; trains nothing. Adapters are judged, each at its own learning rate.

    Args:
        study: the tables.
        margin, confidence: instead of the experiment's.
        corrections: where to keep the corrected score of each trial that comes to be recommended, by number; whoever
            judges one study at many margins gives the same one each time, and it is bootstrapped once for each.

    Raises:
        ExperimentError: margin or confidence out of range.
        StudyError: predictions are damaged.
    """
    trained = int((study.cells["state"] == "complete").sum())
    study = by_adapter(study)
    spec, cv = study.experiment.verdict, study.experiment.cv
    margin = spec.margin if margin is None else margin
    confidence = spec.confidence if confidence is None else confidence
    pruned = study.trials[study.trials["state"] == "pruned"]
    verdict = decide(
        study.trials,
        study.cells,
        folds=cv.folds,
        margin=margin,
        confidence=confidence,
        metric=spec.metric,
        repeats=cv.repeats,
        cells_skipped_by_racing=int((cv.folds * cv.repeats - pruned["cells"]).clip(lower=0).sum()),
        recorded=recorded_of(study),
    )
    corrected = _corrected(study, verdict, {} if corrections is None else corrections)
    verdict = replace(
        verdict,
        cells_trained=trained,
        corrected_score=None if corrected is None else corrected.score,
        corrected_interval=None if corrected is None else corrected.interval,
        holdout_score=_holdout_score(study, verdict),
    )
    return replace(verdict, warnings=doubts(study, verdict))


def _corrected(
    study: RecordedStudy, verdict: Verdict, kept: MutableMapping[int, CorrectedScore | None]
) -> CorrectedScore | None:
    """The score to expect of what this selection recommends, without the flattery of having been selected.

    The selection repeated is the one that gave this recommendation.
    """
    if verdict.recommended is None:
        return None
    if verdict.recommended.trial not in kept:
        kept[verdict.recommended.trial] = _bootstrapped(study, verdict.recommended.trial)
    return kept[verdict.recommended.trial]


def _bootstrapped(study: RecordedStudy, recommended: int) -> CorrectedScore | None:
    complete = study.trials[study.trials["state"] == "complete"]
    examples = study.examples()
    if examples.empty:
        return None
    numbers = [int(trial) for trial in complete["trial"]]
    pooled = pool_predictions(study.predictions(), numbers)
    return corrected_score(
        pooled.predicted,
        examples["label"].to_numpy()[pooled.examples],
        metric=study.experiment.verdict.metric,
        parameters=complete["adapter_parameters"].to_numpy(dtype=float),
        recommended=numbers.index(recommended),
        groups=examples["group"].to_numpy()[pooled.examples],
        seed=study.experiment.seed,
    )


def _holdout_score(study: RecordedStudy, verdict: Verdict) -> float | None:
    """The hold-out's score of the recommended trial; None where it was spent on another, or there is none."""
    kept = facts.HOLDOUT.of(study.facts)
    if kept is None or verdict.recommended is None or kept.trial != verdict.recommended.trial:
        return None
    return kept.scores.get(study.experiment.verdict.metric)
