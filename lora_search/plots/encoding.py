"""What colour and marker mean, the same in every figure: colour is the target set, marker is the layers.

Colours are those of Okabe and Ito (2008), told apart by the colour-blind. Every colour has a name and a twin for dark
pages: a figure drawn once for light paper is recoloured in HTML by CSS, because each hexadecimal value below occurs
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from lora_search.spec import TARGET_GROUPS

PAPER, INK, MUTED, FAINT, BAND, BAND_EDGE = "#ffffff", "#1d2026", "#666b74", "#d9dce1", "#f5ecd7", "#c9a961"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
OTHER = "#8a8f98"
RANKS = ("#80c7ef", "#57b5ea", "#278fcb", "#0173b3", "#095885", "#143950")
"""Of an order, from little to much."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

LIGHT_AND_DARK: Mapping[str, tuple[str, str]] = {
    "paper": (PAPER, "#17191d"),
    "ink": (INK, "#e8e6e1"),
    "muted": (MUTED, "#a0a5ae"),
    "faint": (FAINT, "#3a3e45"),
    "band": (BAND, "#332d1f"),
    "band-edge": (BAND_EDGE, "#8f7a45"),
    "series-1": (SERIES[0], "#4aa3df"),
    "series-2": (SERIES[1], "#f08a4b"),
    "series-3": (SERIES[2], "#2fc49a"),
    "series-4": (SERIES[3], "#e39ac4"),
    "series-5": (SERIES[4], "#9ad4f7"),
    "series-6": (SERIES[5], "#f2c14e"),
    "other": (OTHER, "#7c828c"),
    "rank-1": (RANKS[0], "#3d6b8c"),
    "rank-2": (RANKS[1], "#4a86b0"),
    "rank-3": (RANKS[2], "#5aa1d3"),
    "rank-4": (RANKS[3], "#7fbbe6"),
    "rank-5": (RANKS[4], "#a9d3f0"),
    "rank-6": (RANKS[5], "#d8ebf8"),
}


@dataclass(frozen=True)
class Encoding:
    """Colour of each target set and marker of each layer range, in the order a legend shows them."""

    colours: Mapping[str, str]
    markers: Mapping[str, str]

    @classmethod
    def of(cls, trials: pd.DataFrame) -> Encoding:
        """The encoding of a study, from its trials frame alone: the same frame always gives the same colours.

        From the seventh target set on the colour is grey, from the ninth layer range on the markers repeat.
        """
        targets = sorted(set(trials["targets"]), key=_targets_order)
        layers = sorted(set(trials["layers"]), key=_layers_order)
        return cls(
            {name: SERIES[index] if index < len(SERIES) else OTHER for index, name in enumerate(targets)},
            {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(layers)},
        )


def _targets_order(targets: str) -> tuple[int, str]:
    return (TARGET_GROUPS.index(targets) if targets in TARGET_GROUPS else len(TARGET_GROUPS), targets)


def _layers_order(layers: str) -> tuple[int, float, str]:
    """All layers first, then ``top-A/B`` and ``top-N`` from most to fewest, then lists of indices."""
    if layers == "all":
        return (0, 0.0, layers)
    if match := re.fullmatch(r"top-(\d+)/(\d+)", layers):
        return (1, -float(Fraction(int(match[1]), int(match[2]))), layers)
    if match := re.fullmatch(r"top-(\d+)", layers):
        return (2, -float(match[1]), layers)
    return (3, -float(layers.count(",")), layers)


def css_variables(dark: bool) -> Iterable[tuple[str, str]]:
    """Name and colour of every CSS variable of one theme."""
    return ((name, colours[dark]) for name, colours in LIGHT_AND_DARK.items())
