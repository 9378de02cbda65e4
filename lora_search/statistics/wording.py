"""The verdict in the words a person would use. Knows the verdict's fields and no statistics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_search.statistics.selection import TrialSummary, Verdict

_SHARES = {"1/2": "half", "1/3": "third", "2/3": "two thirds", "1/4": "quarter", "3/4": "three quarters"}


def verdict_sentence(verdict: Verdict) -> str:
    """One sentence for a verdict of any status."""
    recommended, best = verdict.recommended, verdict.best
    if recommended is None or best is None:
        return "No trial was trained to the end, so there is nothing to recommend yet."
    if len(verdict.comparisons) == 1 and verdict.status == "decided":
        return _alone(verdict, adapter_name(recommended.adapter))
    if verdict.status == "undecided":
        return _undecided(verdict, recommended, best)
    margin, sure = points(verdict.margin), percent_sure(verdict.probability_not_worse or 0.0)
    chosen, reference = distinct_names(recommended, best)
    if recommended.trial != best.trial:
        share = parameter_share(recommended.adapter_parameters, best.adapter_parameters)
        return (
            f"{_capital(chosen)} is not worse than the best ({reference}) by more than {margin} ({sure}), with {share}."
        )
    unbeaten = f"({sure} that none beats it by more than {margin})"
    to_the_end = " trained to the end" if verdict.stopped_trials else ""
    if verdict.smaller_trials:
        return f"{_capital(chosen)} scored best {unbeaten}, and every smaller adapter{to_the_end} is worse."
    return f"{_capital(chosen)} scored best and is the smallest{to_the_end or ' compared'} {unbeaten}."


def _alone(verdict: Verdict, name: str) -> str:
    if not verdict.stopped_trials:
        return f"Only {name} was trained to the end: there is nothing to compare it with."
    others = "the other adapter" if verdict.stopped_trials == 1 else f"each of {verdict.stopped_trials} other adapters"
    return f"{_capital(name)} is what racing left: {others} was stopped when it had hardly a chance to be recommended."


def _undecided(verdict: Verdict, recommended: TrialSummary, best: TrialSummary) -> str:
    in_question = verdict.in_question or best
    chosen, reference = distinct_names(in_question, best)
    margin = points(verdict.margin)
    if verdict.rival is not None:
        chosen, reference = distinct_names(in_question, verdict.rival)
        question = f"whether {chosen} is within {margin} of {reference}, which racing stopped"
    elif in_question.trial == best.trial:
        question = f"whether any adapter beats {chosen}, the best so far, by more than {margin}"
    else:
        question = f"whether {chosen} is within {margin} of the best ({reference})"
    if verdict.more_cells_needed is None:
        return f"Cannot tell: more trainings on these data would not settle {question}."
    count = verdict.more_cells_needed
    return f"Cannot tell yet: about {count} more training{'s' if count != 1 else ''} would settle {question}."


def adapter_name(adapter: Mapping[str, Any]) -> str:
    """``{"rank": 2, "targets": "query+value", "layers": "top-1/3"}`` -> "rank 2 on query+value of the top third"."""
    where = f" of {layers_name(str(adapter['layers']))}" if "layers" in adapter else ""
    targets = f" on {str(adapter['targets']).replace(',', ', ')}" if "targets" in adapter else ""
    return f"rank {adapter.get('rank', '?')}{targets}{where}"


def distinct_names(first: TrialSummary, second: TrialSummary) -> tuple[str, str]:
    """The names of two trials, told apart by alpha, learning rate or trial number if the adapters read the same."""
    names = adapter_name(first.adapter), adapter_name(second.adapter)
    if names[0] != names[1] or first.trial == second.trial:
        return names
    for key, label, source in (
        ("alpha", "alpha", "adapter"),
        ("scaling", "scaling", "adapter"),
        ("learning_rate", "learning rate", "nuisance"),
        ("dropout", "dropout", "nuisance"),
    ):
        one, other = getattr(first, source).get(key), getattr(second, source).get(key)
        if one != other:
            return f"{names[0]}, {label} {_short(one)}", f"{names[1]}, {label} {_short(other)}"
    return f"{names[0]}, trial {first.trial}", f"{names[1]}, trial {second.trial}"


def layers_name(layers: str) -> str:
    """``"all"`` -> "all layers", ``"top-1/3"`` -> "the top third", ``"3,4"`` -> "layers 3, 4"."""
    if layers == "all":
        return "all layers"
    if match := re.fullmatch(r"top-(\d+/\d+)", layers):
        return f"the top {_SHARES.get(match[1], match[1] + ' of the layers')}"
    if match := re.fullmatch(r"top-(\d+)", layers):
        return "the top layer" if match[1] == "1" else f"the top {match[1]} layers"
    listed = layers.split(",")
    return f"layer {listed[0]}" if len(listed) == 1 else f"layers {', '.join(listed)}"


def points(difference: float) -> str:
    """A difference of scores in points of a hundred: 0.01 -> "1 point", 0.005 -> "0.5 points"."""
    value = f"{100.0 * difference:.3g}"
    return f"{value} point" if value == "1" else f"{value} points"


def percent_sure(probability: float) -> str:
    """0.974 -> "97 % sure"; rounded down, and never 100 %."""
    percent = math.floor(100.0 * probability + 1e-9)
    return "more than 99 % sure" if percent >= 100 or probability > 0.995 else f"{percent} % sure"


def parameter_share(parameters: int, of: int) -> str:
    """ "1/16 of its adapter parameters"; a percentage when no small fraction is near; "as many" when equal."""
    if parameters == of:
        return "as many adapter parameters"
    if parameters > of:
        return f"{parameters / of:.2g} times its adapter parameters"
    near = Fraction(1, max(1, round(of / parameters)))
    if abs(float(near) * of / parameters - 1.0) < 0.02:
        return f"{near} of its adapter parameters"
    near = Fraction(parameters, of).limit_denominator(12)
    if near > 0 and abs(float(near) * of / parameters - 1.0) < 0.01:
        return f"{near} of its adapter parameters"
    return f"{100.0 * parameters / of:.2g} % of its adapter parameters"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
