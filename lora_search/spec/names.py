"""The small languages of ``search.targets``, ``search.layers`` and ``search.rank_pattern``, brought to one spelling.

A trial is keyed by these strings (in Optuna, in tables, on plots), so two spellings of one choice must become one. And
what a study may be called, wherever its name comes from: it becomes a folder's, and a schema's in a database.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from lora_search.spec.quoting import cut
from lora_search.spec.suggestions import ChoiceError, closest

TARGET_GROUPS: tuple[str, ...] = ("query+value", "attention", "mlp", "all-linear")
RANKED_KINDS = TARGET_GROUPS[:3]
"""Kinds of module whose rank may differ from the adapter's, the narrower of two first."""
UNIFORM, EVA = "uniform", "eva"

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST_STUDY_NAME = 100

_MOST_LAYERS = 10**9
# so many digits and no more: Python refuses to read a number of thousands
_TOP = re.compile(r"top-([0-9]{1,9})(?:/([0-9]{1,9}))?")
_INDICES = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*")
_FACTOR = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,4})?")
_FACTORS = (0.001, 64.0)
_WIDTH = 60
_MODULE_NAME = re.compile(r"^[A-Za-z_][\w.]*$")
_TARGETS_RULE = f"must be one of {', '.join(TARGET_GROUPS)}, or module names"
_LAYERS_RULE = 'must be "all", "top-N", "top-A/B" (at most 1) or a list of layer indices from 0'
_PATTERN_RULE = 'must be "uniform", "eva", or factors of the rank such as "mlp:0.5" or "attention:2,mlp:0.5"'
_KIND_RULE = f"must name a kind of module ({', '.join(RANKED_KINDS)}) before each factor"
_FACTOR_RULE = "must have factors from {:g} to {:g}".format(*_FACTORS)
# "atention" could name a module, but never does: this near to a group, a name is a slip.
_TYPO_SIMILARITY = 0.85


def is_study_name(name: Any) -> bool:
    """Whether a study can be called so."""
    return isinstance(name, str) and len(name) <= LONGEST_STUDY_NAME and bool(re.fullmatch(STUDY_NAME, name))


def canonical_targets(value: Any) -> str:
    """``"attention"`` -> ``"attention"``; ``["v_proj", "q_proj"]`` or ``"v_proj, q_proj"`` -> ``"q_proj,v_proj"``.

    Raises:
        ChoiceError: neither a group nor module names.
    """
    if isinstance(value, str) and value in TARGET_GROUPS:
        return value
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ChoiceError(_TARGETS_RULE)
    stripped = sorted({name.strip() for name in names})
    if len(stripped) == 1 and stripped[0] in TARGET_GROUPS:
        return stripped[0]
    for name in stripped:
        is_name = _MODULE_NAME.match(name) and name not in TARGET_GROUPS
        group = closest(name, TARGET_GROUPS, _TYPO_SIMILARITY if is_name else 0.6)
        if not is_name or group:
            raise ChoiceError(_TARGETS_RULE, group if group != name else None)
    if not stripped:
        raise ChoiceError(_TARGETS_RULE)
    return ",".join(stripped)


def canonical_layers(value: Any) -> str:
    """``"all"``, ``"top-2"``, ``"top-2/6"`` -> ``"top-1/3"``, ``[5, 3]`` or ``"3,5"`` -> ``"3,5"``.

    Raises:
        ChoiceError: none of these forms.
    """
    if isinstance(value, str):
        if value == "all":
            return value
        if match := _TOP.fullmatch(value):
            return _canonical_top(int(match[1]), match[2])
        if not _INDICES.fullmatch("".join(value.split())):
            raise ChoiceError(_LAYERS_RULE, closest(value, ("all", "top-2", "top-1/2", "top-1/3", "top-1/4"), 0.7))
        value = value.split(",")
    if not isinstance(value, list | tuple) or not value or any(isinstance(item, bool | float) for item in value):
        raise ChoiceError(_LAYERS_RULE)
    try:
        indices = sorted({int(item) for item in value})
    except (TypeError, ValueError):
        raise ChoiceError(_LAYERS_RULE) from None
    if indices[0] < 0 or indices[-1] >= _MOST_LAYERS:
        raise ChoiceError(_LAYERS_RULE)
    return ",".join(str(index) for index in indices)


def _canonical_top(count: int, of: str | None) -> str:
    if of is None:
        if count < 1:
            raise ChoiceError(_LAYERS_RULE)
        return f"top-{count}"
    if int(of) == 0 or count == 0 or count > int(of):
        raise ChoiceError(_LAYERS_RULE)
    share = Fraction(count, int(of))
    return "all" if share == 1 else f"top-{share.numerator}/{share.denominator}"


def layer_indices(layers: str, count: int) -> tuple[int, ...]:
    """The layers a canonical string names in a stack of ``count``: ``layer_indices("top-1/3", 6) == (4, 5)``.

    ``top-A/B`` rounds to the nearest whole number of layers, and never to none.

    Raises:
        ChoiceError: a layer the stack does not have.
    """
    if layers == "all":
        return tuple(range(count))
    if match := _TOP.fullmatch(layers):
        chosen = int(match[1]) if match[2] is None else max(1, round(Fraction(int(match[1]), int(match[2])) * count))
        if chosen > count:
            raise ChoiceError(f"must name at most the {count} layers of the model", got=cut(layers, _WIDTH))
        return tuple(range(count - chosen, count))
    indices = tuple(int(item) for item in layers.split(","))
    if indices[-1] >= count:
        rule = f"must be below {count}, the number of layers of the model"
        raise ChoiceError(rule, got=cut(str(indices[-1]), _WIDTH))
    return indices


def canonical_rank_pattern(value: Any) -> str:
    """``"uniform"``, ``"eva"``; ``"mlp: 0.50, attention: 2"`` -> ``"attention:2,mlp:0.5"``; ``"mlp:1"`` -> "uniform".

    Raises:
        ChoiceError: none of these forms.
    """
    if not isinstance(value, str):
        raise ChoiceError(_PATTERN_RULE)
    if value in (UNIFORM, EVA):
        return value
    factors: dict[str, float] = {}
    for part in value.split(","):
        kind, colon, factor = (piece.strip() for piece in part.partition(":"))
        if not colon:
            raise ChoiceError(_PATTERN_RULE, closest(part, (UNIFORM, EVA)))
        if kind not in RANKED_KINDS:
            meant = closest(kind, RANKED_KINDS)
            raise ChoiceError(_KIND_RULE, None if meant is None else value.replace(kind, meant, 1))
        if kind in factors:
            raise ChoiceError(f"must give {kind} one factor")
        if not _FACTOR.fullmatch(factor) or not _FACTORS[0] <= float(factor) <= _FACTORS[1]:
            raise ChoiceError(_FACTOR_RULE)
        factors[kind] = float(factor)
    # what query and value have anyhow, being part of attention, and a factor of 1, need not be said
    usual = {"query+value": factors.get("attention", 1.0)}
    said = [kind for kind in RANKED_KINDS if factors.get(kind, usual.get(kind, 1.0)) != usual.get(kind, 1.0)]
    return ",".join(f"{kind}:{factors[kind]:g}" for kind in said) or UNIFORM


def rank_factors(pattern: str) -> dict[str, float]:
    """``"attention:2,mlp:0.5"`` -> ``{"attention": 2.0, "mlp": 0.5}``, of a canonical string; none of the others."""
    if pattern in (UNIFORM, EVA):
        return {}
    return {kind: float(factor) for kind, _, factor in (part.partition(":") for part in pattern.split(","))}
