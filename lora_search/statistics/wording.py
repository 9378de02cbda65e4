"""Adapters, differences and probabilities in the words a person would use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from lora_search.metrics import METRICS, has_own_unit
from lora_search.spec import UNIFORM, rank_pattern_words

_SHARES = {"1/2": "half", "1/3": "third", "2/3": "two thirds", "1/4": "quarter", "3/4": "three quarters"}


def adapter_name(adapter: Mapping[str, Any]) -> str:
    """``{"rank": 2, "targets": "query+value", "layers": "top-1/3"}`` -> "rank 2 on query+value of the top third"; one
    that is a DoRA is called so, and ranks that differ by module are told."""
    where = f" of {layers_name(str(adapter['layers']))}" if "layers" in adapter else ""
    targets = f" on {str(adapter['targets']).replace(',', ', ')}" if "targets" in adapter else ""
    ranks = rank_pattern_words(str(adapter.get("rank_pattern", UNIFORM)))
    rank = f"rank {adapter.get('rank', '?')}{f' ({ranks})' if ranks else ''}"
    return f"{'DoRA of ' if adapter.get('use_dora') else ''}{rank}{targets}{where}"


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


def amount(difference: float, metric: str) -> str:
    """A difference of scores in the unit of its metric: "1 point", "0.02 nats"."""
    unit = METRICS[metric].unit if metric in METRICS else "points"
    return points(difference) if unit == "points" else f"{three_figures(difference)} {unit}"


def score_words(score: float, metric: str) -> str:
    """A score as pages write it: "88.0 %" of accuracy, "0.880" of other metrics, three figures in the label's unit."""
    if metric == "accuracy":
        return f"{100.0 * score:.1f} %"
    return three_figures(score) if has_own_unit(metric) else f"{score:.3f}"


def score_number(score: float) -> str:
    """A score of any metric in a line of its own: 0.812, 0.0000012, 54.300, 812.4, 1196167."""
    size = abs(score)
    if 0.0 < size < 0.001:
        return np.format_float_positional(float(f"{score:.3g}"), trim="-")
    return f"{score:.{3 if size < 100 else 1 if size < 1000 else 0}f}"


def three_figures(value: float) -> str:
    """0.0123, 12.3, 1230: no power of ten, unless the number is very small."""
    return f"{float(f'{value:.3g}'):.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def percent_sure(probability: float) -> str:
    """0.974 -> "97 % sure"; rounded down, and never 100 %."""
    percent = math.floor(100.0 * probability + 1e-9)
    return "more than 99 % sure" if percent >= 100 or probability > 0.995 else f"{percent} % sure"


def percentage(share: float) -> str:
    """A share in two figures: 0.000213 -> "0.021 %", 0.5 -> "50 %"."""
    return f"{100.0 * share:.2g} %" if share < 0.995 else f"{100.0 * share:.0f} %"


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


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
