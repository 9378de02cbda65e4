"""Sentences that warn: what a verdict cannot know about itself.

Each function looks at one way in which a study fools its owner and returns a sentence, or None when there is nothing
to say.
Pure: plain numbers and frames in. What to do about it is part of the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from lora_search.metrics import METRICS, direction, has_own_unit, metric_named
from lora_search.statistics.comparison import pairwise
from lora_search.statistics.contest import Contest
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.question import Question
from lora_search.statistics.wording import amount, layers_name, score_words

_EDGE = 0.05
"""A learning rate within this share of the range's ends, on a log scale, is on the edge."""
_FEW_EXAMPLES = 30
_SHARE = "accuracy"
"""Differences are told in its unit where nothing else is said."""


def learning_rate_edge(best: float, low: float, high: float) -> str | None:
    """The best trial's learning rate lies at an end of its range, so a better one may lie beyond."""
    place = math.log(best / low) / math.log(high / low)
    if _EDGE < place < 1.0 - _EDGE:
        return None
    end, way, key, bound = ("lower", "lower", "low", low) if place <= _EDGE else ("upper", "higher", "high", high)
    return (
        f"The best learning rate, {best:.2g}, is at the {end} end of its range: "
        f"try a {way} search.learning_rate.{key} than {bound:g}."
    )


def rank_edge(recommended: int, best: int, ranks: Sequence[int]) -> str | None:
    """The answer lies at an end of the ranks searched: a smaller one might do, or a larger one be needed."""
    low, high = min(ranks), max(ranks)
    if low == high:
        return None
    if best == high:
        return f"The best rank is the largest searched, {high}: a larger one may score better."
    if recommended == low and low > 1:
        return f"The recommended rank is the smallest searched, {low}: a smaller one may do."
    return None


def layers_edge(recommended: str, counts: dict[str, int]) -> str | None:
    """The recommended layer range is the shortest searched.

    Args:
        recommended: its name in the experiment's spelling.
        counts: number of layers of each range searched.
    """
    if len(set(counts.values())) < 2 or counts[recommended] > min(counts.values()) or counts[recommended] <= 1:
        return None
    return f"The recommended adapter is on the fewest layers searched ({layers_name(recommended)}): fewer may do."


def more_layers_edge(best: str, counts: dict[str, int], layers: int) -> str | None:
    """The best trial is on the longest layer range searched, and the model has more layers.

    Args:
        best: its range in the experiment's spelling.
        counts: number of layers of each range searched.
        layers: of the model.
    """
    if len(set(counts.values())) < 2 or counts[best] < max(counts.values()) or counts[best] >= layers:
        return None
    return f"The best adapter is on the most layers searched ({layers_name(best)}): more may score better."


def raced_for_less(stopped: int, margin: float, confidence: float, metric: str = _SHARE) -> str | None:
    """A stricter question is asked than the one for which racing stopped trials.

    Args:
        stopped: number of trials that racing stopped.
        margin, confidence, metric: of the experiment.
    """
    if not stopped:
        return None
    trials = "a trial" if stopped == 1 else f"{stopped} trials"
    return (
        f"Racing stopped {trials} that hardly mattered for a margin of {amount(margin, metric)} at"
        f" {100 * confidence:g} %; for this stricter question they might: run a study that asks it."
    )


def smaller_not_shown_worse(contest: Contest, parameters: float, question: Question) -> list[int]:
    """Numbers of the trials that were stopped, with fewer than ``parameters``, that no complete trial is shown to
    beat by more than the margin on the cells both have."""
    matrix = contest.everyone_by_example
    complete = np.isin(matrix.trials, contest.finished.trials)
    smaller = np.flatnonzero(~complete & (matrix.parameters < parameters))
    pairs = matrix.pairs(question.folds).at(np.ix_(np.flatnonzero(complete), smaller))
    worse = (1.0 - pairs.probability_at_most(question.margin)).max(axis=0) >= question.confidence
    return [matrix.trials[row] for row in smaller[~worse]]


def smaller_stopped_early(trials: Sequence[int], margin: float, metric: str = _SHARE) -> str | None:
    """Smaller adapters than the recommended one were stopped before they were shown to be worse than the best.

    Racing asks who will be recommended, and not who is shown to be worse; so does the choice of those that get the last
    of a limited number of trainings.

    Args:
        trials: their numbers.
        margin, metric: of the verdict.
    """
    if not trials:
        return None
    listed = ", ".join(map(str, trials))
    who, they, them = (f"Trial {listed}", "it", "it") if len(trials) == 1 else (f"Trials {listed}", "they", "them")
    were = "was" if len(trials) == 1 else "were"
    return (
        f"{who}, smaller than the recommended, {were} stopped before {they} could be shown to be more than "
        f"{amount(margin, metric)} worse than the best: unlikely to be recommended, {they} may be good enough all the"
        f" same; a study of {them} alone would tell."
    )


def adapters_never_tried(untried: int, of: int, cells: int) -> str | None:
    """Trainings ran out before every adapter of the search had one.

    Args:
        untried: adapters without a training.
        of: adapters of the search.
        cells: trainings that it allows.
    """
    if untried <= 0:
        return None
    were = "was" if untried == 1 else "were"
    return (
        f"{untried} of the {of} adapters searched {were} never trained: the limit of {cells} trainings (search.cells) "
        "was reached before. A study of more would tell."
    )


def rates_left_untried(trials: Sequence[int], allowed: int, margin: float, metric: str = _SHARE) -> str | None:
    """Adapters that may be as good as the best were judged at learning rates far from theirs, and could have no other.

    Args:
        trials: their numbers.
        allowed: settings of the study.
        margin, metric: of the verdict.
    """
    if not trials:
        return None
    why = f", and the {allowed} trials that search.trials allows are used up"
    return _judged_at_costly_rates(trials, why, margin, metric) + " A study of more trials would tell."


def rates_beyond_the_range(
    trials: Sequence[int], low: float, high: float, margin: float, metric: str = _SHARE
) -> str | None:
    """Adapters that may be as good as the best have their best learning rates where the experiment lets none be tried.

    Args:
        trials: their numbers.
        low, high: the range of the experiment.
        margin, metric: of the verdict.
    """
    if not trials:
        return None
    why = f", which search.learning_rate, {low:g} to {high:g}, leaves out"
    return _judged_at_costly_rates(trials, why, margin, metric) + " A study of a wider range would tell."


def _judged_at_costly_rates(trials: Sequence[int], why: str, margin: float, metric: str) -> str:
    one = len(trials) == 1
    who = f"Trial {trials[0]} is" if one else f"Trials {', '.join(map(str, trials))} are"
    rates, whose = ("at a learning rate", "its") if one else ("at learning rates", "their")
    scores = "it scores says little of this adapter" if one else "they score says little of these adapters"
    return (
        f"{who} judged {rates} believed to cost more than {amount(margin, metric)} against {whose} best{why}:"
        f" what {scores}."
    )


def no_better_than_guessing(score: float, interval: tuple[float, float], guess: float, metric: str) -> str | None:
    """The best trial is not clearly better than always giving the same answer: the majority class, the mean.

    Args:
        score: of the best trial.
        interval: of its true score; NaN or infinite where unknown.
        guess: what the same answer always scores in the same metric.
        metric: its name.
    """
    sign = direction(metric)
    worst = min((sign * end for end in interval), default=score)
    if (worst if math.isfinite(worst) else sign * score) > sign * guess:
        return None
    way = "above" if sign > 0 else "below"
    return (
        f"The best {metric_named(metric).title}, {score_words(score, metric)}, is not clearly {way} what knowing "
        f"nothing of the texts scores ({score_words(guess, metric)}): nothing was learned that a verdict could be "
        "about."
    )


def few_examples_per_fold(examples: Sequence[int]) -> str | None:
    """Fold scores of very few examples are coarse and their t distribution a poor one."""
    smallest = min(examples)
    if smallest >= _FEW_EXAMPLES:
        return None
    return f"The smallest fold has {smallest} examples, fewer than {_FEW_EXAMPLES}: use fewer folds or more data."


def duplicated_texts(copies: int, total: int) -> str | None:
    """Texts that occur more than once; they are kept in one fold, and count more than once."""
    if copies == 0:
        return None
    share = 100.0 * copies / total
    return (
        f"{copies} of {total} texts ({share:.2g} %) repeat another text; copies are kept in one fold, but count twice."
    )


def resolvable_margin(matrix: ScoreMatrix, question: Question) -> float | None:
    """The smallest margin these data could resolve with any number of repeats; None without two comparable trials.

    For two equal trials with the median noise of a pair: z(confidence) times what lasts of the scale (for fold scores
    S sqrt(rho / (1 - rho)) with rho = 1 / folds, the correlated t without its 1/J term).
    """
    if len(matrix.trials) < 2:
        return None
    lasting = matrix.pairs(question.folds).lasting[np.triu_indices(len(matrix.trials), 1)]
    known = lasting[np.isfinite(lasting)]
    if known.size == 0:
        return None
    return float(special.ndtri(question.confidence) * math.sqrt(float(np.median(known))))


def margin_too_small(margin: float, resolvable: float | None, metric: str = _SHARE) -> str | None:
    """The margin is below what the data could ever resolve, so the verdict will hardly ever be decided."""
    if resolvable is None or margin >= resolvable:
        return None
    step = 10.0 ** (math.floor(math.log10(resolvable)) - 1) if has_own_unit(metric) and resolvable > 0 else 1e-3
    could = math.ceil(resolvable / step) * step
    return (
        f"A margin of {amount(margin, metric)} is smaller than these data can resolve with any number of trainings; "
        f"about {amount(could, metric)} would be possible, or more examples."
    )


def head_alone_is_enough(
    differences: Sequence[float],
    folds: int,
    margin: float,
    confidence: float,
    metric: str = _SHARE,
    *,
    trained: bool = True,
    resolution: float = 0.0,
) -> str | None:
    """The best adapter is not shown to beat training the head alone, or a base without a head to train as it is.

    Args:
        differences: how much better the best trial scores than the head alone, paired by (repeat, fold).
        folds: the k of k-fold.
        margin, confidence, metric: of the verdict.
        trained: whether there is a head to train.
        resolution: least variance of one difference that can be told from none (see ``matrix``).
    """
    posterior = pairwise(np.stack([differences, np.zeros(len(differences))]), folds, resolution=resolution).at((0, 1))
    if 1.0 - float(posterior.probability_at_most(0.0)) >= confidence:
        return None
    gain = float(posterior.mean)
    if float(posterior.probability_at_most(margin)) >= confidence:
        alone = "Training the head alone" if trained else "The base as it is"
        return f"{alone} is not worse than LoRA by more than {amount(margin, metric)}: it may be all you need."
    way = "lower" if (gain < 0) == METRICS[metric].greater_is_better else "higher"
    beaten = "training the head alone" if trained else "the base as it is"
    gap = f"{amount(abs(gain), metric)} {way}" if gain else "the same"
    return f"LoRA is not shown to beat {beaten}: {gap} on average, within the noise."


def holdout_disagrees(
    holdout: float,
    corrected: float,
    interval: tuple[float, float],
    examples: int,
    metric: str = _SHARE,
    development: int = 1,
) -> str | None:
    """The hold-out score lies outside what the corrected score and the hold-out's own size allow.

    Args:
        holdout: score on the hold-out.
        corrected: corrected score from cross-validation.
        interval: its 95 % interval.
        examples: size of the hold-out, for its own error: binomial, an approximation for metrics other than accuracy.
        metric: of the verdict. A loss is no share: its own error is that of the cross-validation, for fewer examples.
        development: examples of the cross-validation.
    """
    error = (interval[1] - interval[0]) / 3.92
    own = math.sqrt(max(corrected * (1.0 - corrected), 0.0) / examples) if 0.0 < corrected < 1.0 else 0.0
    if METRICS[metric].unit != "points":
        own = error * math.sqrt(development / examples)
    half = 1.96 * math.hypot(error, own)
    if abs(holdout - corrected) <= half:
        return None
    way = "below" if holdout < corrected else "above"
    return (
        f"The hold-out score, {score_words(holdout, metric)}, is {amount(abs(holdout - corrected), metric)} {way} the "
        f"cross-validated {score_words(corrected, metric)}, more than chance allows: the hold-out differs from the "
        "rest, or folds leak into each other."
    )


def head_alone_failed(failed: int, trainings: int, reason: str) -> str:
    """Trainings of the head alone diverged, so that it is not known what the adapters have to beat.

    Args:
        failed: how many.
        trainings: of how many.
        reason: of the first.
    """
    return (
        f"Training the head alone diverged in {failed} of {trainings} folds"
        f" ({reason}): what the adapters have to beat is not known."
    )


def baseline_rate_edge(name: str, chosen: Sequence[float], tried: Sequence[float]) -> str | None:
    """What adapters are compared with was scored at an end of the learning rates tried for it, on every fold.

    Args:
        name: as it begins a sentence.
        chosen: the rates it was scored at.
        tried: all that were tried; of one nothing can be said.
    """
    low, high = min(tried), max(tried)
    if low == high or len(set(chosen)) > 1 or chosen[0] not in (low, high):
        return None
    end, other = ("highest", "higher") if chosen[0] == high else ("lowest", "lower")
    rate = f"{chosen[0]:g}"
    return f"{name} scores best at the {end} learning rate tried for it, {rate}: a {other} one may suit it better."


def holdout_training_failed(trial: int, reason: str) -> str:
    """The recommended trial diverged when it was trained on everything but the hold-out.

    Args:
        trial: its number.
        reason: why.
    """
    return (
        f"Trial {trial} diverged when it was trained on all examples but the hold-out ({reason}), so there is no"
        " hold-out score: its learning rate is close to too high."
    )


def warnings_of(*sentences: str | None) -> tuple[str, ...]:
    """The sentences there are."""
    return tuple(sentence for sentence in sentences if sentence is not None)
