"""What a recorded study should be doubted for: every guard, asked of what was recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_search.metrics import direction, metric_named
from lora_search.spec import ADAPTER_FIELDS, facts, layer_indices
from lora_search.statistics import guards
from lora_search.statistics.by_adapter import ByAdapter
from lora_search.statistics.contest import Contest
from lora_search.statistics.examples import truth_of
from lora_search.statistics.question import Question
from lora_search.statistics.recorded import RecordedStudy
from lora_search.statistics.verdict import TrialSummary, Verdict
from lora_search.statistics.wording import capital


def doubts(
    study: RecordedStudy, verdict: Verdict, question: Question, contest: Contest, head: Sequence[facts.HeadAlone]
) -> tuple[str, ...]:
    """The sentences of all guards that have something to say about ``verdict``.

    Args:
        study: that was judged. verdict: on it. question: that it answers. contest: the scores.
        head: what ``head_alone`` finds in the study.
    """
    if verdict.recommended is None or verdict.best is None:
        return ()
    return guards.warnings_of(
        *_of_the_space(study, verdict.recommended, verdict.best),
        _of_the_limit(study, verdict.cells_trained),
        _of_learning(study, verdict.best, verdict.metric),
        *_of_the_rates(study, verdict.best, verdict.metric),
        *_of_the_data(study, verdict, question, contest),
        _of_the_head(study, head, verdict, verdict.best, contest),
        *_of_the_baselines(study, verdict),
        _of_the_holdout(study, verdict),
        _of_racing(study, verdict),
        _of_the_smaller(verdict, question, contest),
    )


def _of_the_space(study: RecordedStudy, recommended: TrialSummary, best: TrialSummary) -> list[str | None]:
    search = study.experiment.search
    found: list[str | None] = []
    if search.tunes_rate:
        rate = float(best.nuisance["learning_rate"])
        found.append(guards.learning_rate_edge(rate, search.rates.low, search.rates.high))
    found.append(guards.rank_edge(int(recommended.adapter["rank"]), int(best.adapter["rank"]), search.rank))
    count = study.environment.get("model", {}).get("layers")
    if count is not None:
        counts = {layers: len(layer_indices(layers, int(count))) for layers in search.layers}
        found.append(guards.layers_edge(str(recommended.adapter["layers"]), counts))
        found.append(guards.more_layers_edge(str(best.adapter["layers"]), counts, int(count)))
    return found


def _of_the_limit(study: RecordedStudy, trained: int) -> str | None:
    """All adapters were to be tried, and trainings for them ran out."""
    search = study.experiment.search
    searched = facts.ADAPTERS.of(study.facts) or search.combinations
    if search.cells is None or trained < search.cells or searched > search.trials:
        return None
    begun = study.trials.loc[study.trials["cells"] > 0, list(ADAPTER_FIELDS)].drop_duplicates()
    return guards.adapters_never_tried(searched - len(begun), searched, search.cells)


def _of_learning(study: RecordedStudy, best: TrialSummary, metric: str) -> str | None:
    truth = truth_of(study.examples())
    if not len(truth):
        return None
    guess = metric_named(metric).score_of_knowing_nothing(truth)
    if not math.isfinite(guess):
        return None  # what no adapter scores is told instead
    return guards.no_better_than_guessing(best.score_mean, best.score_interval, guess, metric)


def _of_the_rates(study: RecordedStudy, best: TrialSummary, metric: str) -> list[str | None]:
    """An adapter may be left with a rate that does not suit it: where its best one is not among those that may be
    tried, and where the trials are used up."""
    experiment = study.experiment
    margin, search = experiment.verdict.margin, experiment.search
    if not isinstance(study, ByAdapter) or study.model is None:
        return []
    model, rates = study.model, search.rates
    used_up = len(study.table.trials) >= search.trials
    enough = model.top[study.adapter_of(best.trial)] - margin
    scored = study.trials[study.trials["cells"] > 0]
    untried: list[int] = []
    beyond: list[int] = []
    for trial, rate in zip(scored["trial"].astype(int), scored["learning_rate"], strict=True):
        row = study.adapter_of(trial)
        if model.top[row] < enough or float(model.loss(row, math.log(rate))) <= margin:
            continue
        wanted = float(model.optimum(model.features[[row]])[0][0])
        allowed = min(max(wanted, math.log(rates.low)), math.log(rates.high))
        if allowed != wanted and float(model.loss(row, allowed)) > margin:
            beyond.append(trial)
        elif used_up:
            untried.append(trial)
    return [
        guards.rates_beyond_the_range(beyond, rates.low, rates.high, margin, metric),
        guards.rates_left_untried(untried, search.trials, margin, metric),
    ]


def _of_the_data(study: RecordedStudy, verdict: Verdict, question: Question, contest: Contest) -> list[str | None]:
    complete = study.cells[study.cells["state"] == "complete"]
    data = study.environment.get("data", {})
    too_small = None
    if verdict.status == "undecided":
        too_small = guards.margin_too_small(
            verdict.margin, guards.resolvable_margin(contest.finished, question), verdict.metric
        )
    return [
        guards.few_examples_per_fold([int(count) for count in complete["examples"]]) if len(complete) else None,
        guards.duplicated_texts(int(data.get("duplicate_examples", 0)), max(1, int(data.get("examples", 1)))),
        too_small,
    ]


def _of_the_head(
    study: RecordedStudy, alone: Sequence[facts.HeadAlone], verdict: Verdict, best: TrialSummary, contest: Contest
) -> str | None:
    if not alone:
        return None
    if failed := [cell for cell in alone if cell.failure is not None]:
        return guards.head_alone_failed(len(failed), len(alone), str(failed[0].failure))
    cells = study.cells[(study.cells["trial"] == best.trial) & (study.cells["state"] == "complete")]
    scores = {
        (int(r), int(k)): float(s) for r, k, s in zip(cells["repeat"], cells["fold"], cells["score"], strict=True)
    }
    differences = [
        direction(verdict.metric) * (scores[cell.repeat, cell.fold] - cell.scores[verdict.metric])
        for cell in alone
        if (cell.repeat, cell.fold) in scores
    ]
    if not differences:
        return None
    return guards.head_alone_is_enough(
        differences,
        study.experiment.cv.folds,
        verdict.margin,
        verdict.confidence,
        verdict.metric,
        trained=best.head_parameters > 0,
        resolution=contest.finished.resolution,
    )


def _of_the_baselines(study: RecordedStudy, verdict: Verdict) -> list[str | None]:
    """A baseline that was given too low or too high a rate makes adapters look better than they are."""
    compared = () if verdict.baselines is None else verdict.baselines.compared
    tried = study.baselines.groupby("baseline")["learning_rate"].unique()
    return [
        guards.baseline_rate_edge(capital(row.title), row.learning_rates, [float(rate) for rate in tried[row.name]])
        for row in compared
        if row.learning_rates
    ]


def _of_the_holdout(study: RecordedStudy, verdict: Verdict) -> str | None:
    kept = facts.HOLDOUT.of(study.facts)
    if kept is None or verdict.recommended is None:
        return None
    if kept.failure is not None:
        same = kept.trial == verdict.recommended.trial
        return guards.holdout_training_failed(kept.trial, kept.failure) if same else None
    if kept.trial != verdict.recommended.trial:
        return (
            f"The hold-out was scored by trial {kept.trial}, which was recommended then; it cannot be used twice, so"
            f" there is no hold-out score of trial {verdict.recommended.trial}."
        )
    if verdict.corrected_score is None or verdict.corrected_interval is None:
        return None
    data = study.environment.get("data", {})
    examples = int(data.get("holdout_examples", 1))
    return guards.holdout_disagrees(
        kept.scores[verdict.metric],
        verdict.corrected_score,
        verdict.corrected_interval,
        examples,
        verdict.metric,
        development=int(data.get("examples", examples)) - examples,
    )


def _of_racing(study: RecordedStudy, verdict: Verdict) -> str | None:
    asked = study.experiment.verdict
    if verdict.margin >= asked.margin and verdict.confidence <= asked.confidence:
        return None
    return guards.raced_for_less(verdict.stopped_trials, asked.margin, asked.confidence, asked.metric)


def _of_the_smaller(verdict: Verdict, question: Question, contest: Contest) -> str | None:
    """Racing asks who will be recommended; a smaller trial it stopped need not have been shown to be worse."""
    if verdict.status != "decided" or verdict.recommended is None:
        return None
    numbers = guards.smaller_not_shown_worse(contest, verdict.recommended.adapter_parameters, question)
    return guards.smaller_stopped_early(numbers, verdict.margin, verdict.metric)
