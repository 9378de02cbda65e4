"""The verdict of a recorded study, with the experiment's own margin and confidence or with others."""

from __future__ import annotations

from dataclasses import replace

from lora_search.spec import facts
from lora_search.statistics.baselines import baseline_verdict, head_alone
from lora_search.statistics.beside import BaselineVerdict
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.contest import Contest
from lora_search.statistics.doubts import doubts
from lora_search.statistics.estimation import CorrectedScore, corrected_score, pool_predictions
from lora_search.statistics.examples import truth_of
from lora_search.statistics.question import Question
from lora_search.statistics.recorded import RecordedStudy, recorded_of
from lora_search.statistics.selection import decide, out_of_cells, summary_of
from lora_search.statistics.verdict import TrialSummary, Verdict


def judge(study: RecordedStudy, margin: float | None = None, confidence: float | None = None) -> Verdict:
    """Decide from what is recorded; trains nothing. Adapters are judged, each at its own learning rate.

    Args:
        study: the tables.
        margin, confidence: instead of the experiment's.

    Raises:
        ExperimentError: margin or confidence out of range.
        StudyError: predictions are damaged.
    """
    return Judge(study).verdict(margin, confidence)


class Judge:
    """Judges one study at many margins and confidences, and finds out once what does not depend on them.

    Args:
        study: the tables.

    Raises:
        StudyError: predictions are damaged.
    """

    def __init__(self, study: RecordedStudy) -> None:
        self.trained = int((study.cells["state"] == "complete").sum())
        self.study = by_adapter(study)
        metric = self.study.experiment.verdict.metric
        self.contest = Contest(self.study.trials, self.study.cells, metric, recorded_of(self.study))
        self._head = head_alone(self.study)
        self._corrected: dict[int, CorrectedScore | None] = {}
        self._baselines: dict[int, BaselineVerdict | None] = {}

    def verdict(self, margin: float | None = None, confidence: float | None = None) -> Verdict:
        """As :func:`judge`."""
        study = self.study
        question = Question.of(study.experiment, margin, confidence)
        raced = study.trials[(study.trials["state"] == "pruned") & ~out_of_cells(study.trials)]
        verdict = decide(
            study.trials,
            study.cells,
            question,
            cells_skipped_by_racing=int((question.planned - raced["cells"]).clip(lower=0).sum()),
            contest=self.contest,
        )
        corrected = self._corrected_score(verdict)
        verdict = replace(
            verdict,
            cells_trained=self.trained,
            corrected_score=None if corrected is None else corrected.score,
            corrected_interval=None if corrected is None else corrected.interval,
            holdout_score=_holdout_score(study, verdict),
            baselines=self._beside(verdict),
        )
        return replace(verdict, warnings=doubts(study, verdict, question, self.contest, self._head))

    def summary(self, trial: int) -> TrialSummary | None:
        """A trial as a verdict shows it; None where it was not trained to the end or does not stand for its adapter."""
        matrix, experiment = self.contest.finished, self.study.experiment
        if trial not in matrix.trials:
            return None
        row = matrix.trials.index(trial)
        return summary_of(self.study.trials, matrix, row, experiment.cv.folds, experiment.verdict.metric)

    def _beside(self, verdict: Verdict) -> BaselineVerdict | None:
        """What the recommended adapter is worth beside what is none."""
        if verdict.recommended is None:
            return None
        if verdict.recommended.trial not in self._baselines:
            self._baselines[verdict.recommended.trial] = baseline_verdict(self.study, verdict.recommended)
        return self._baselines[verdict.recommended.trial]

    def _corrected_score(self, verdict: Verdict) -> CorrectedScore | None:
        """The score to expect of what this selection recommends, without the flattery of having been selected.

        The selection repeated is the one that gave this recommendation.
        """
        if verdict.recommended is None:
            return None
        if verdict.recommended.trial not in self._corrected:
            self._corrected[verdict.recommended.trial] = _bootstrapped(self.study, verdict.recommended.trial)
        return self._corrected[verdict.recommended.trial]


def _bootstrapped(study: RecordedStudy, recommended: int) -> CorrectedScore | None:
    complete = study.trials[study.trials["state"] == "complete"]
    examples = study.examples()
    if examples.empty:
        return None
    numbers = [int(trial) for trial in complete["trial"]]
    pooled = pool_predictions(study.predictions(), numbers)
    return corrected_score(
        pooled.predicted,
        truth_of(examples)[pooled.examples],
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
