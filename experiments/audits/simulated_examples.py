"""Studies whose every prediction is simulated: who is right about which example, in which training.

Trial t, trained for fold f of repeat r, is right about example i of that fold where

    ability_t + difficulty_i + taste_ti + luck_trf + chance_trfi > 0.

Difficulty is shared by all trials, so that they err on the same examples; taste is what a trial makes of an example in
every training; luck moves a whole training, and is correlated rho between the trainings of one study; chance is new in
every prediction. Abilities are set so that the probability of being right, over everything random, is the true score.

Kinds of noise differ in the luck, and one in the examples:

- ``normal``: luck is normal. ``no luck``: there is none, examples explain all noise.
- ``heteroscedastic``: trials differ in luck, the unluckiest twentieth has six times the standard deviation of the
  steadiest.
- ``heavy tails``: a t distribution with 3 degrees of freedom.
- ``families``: trials of one of four families share half the variance of their luck, and half of their taste.
- ``groups``: examples come five to a group, which shares half the variance of difficulty and taste.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from lora_search.statistics import ExampleScores

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator

DIFFICULTY, TASTE, CHANCE, LUCK = 0.9, 0.3, 0.3, 0.06
"""Standard deviations. Two equal trials at 0.8 disagree on one example in six, as on the quick start's quotes, and luck
moves a fold by 1.7 points."""
GROUP = 5
FAMILIES = 4
KINDS = ("normal", "no luck", "heteroscedastic", "heavy tails", "families", "groups")


@dataclass(frozen=True)
class Shape:
    """Folds and repeats of a simulated study, and the correlation of the luck of its trainings."""

    folds: int
    repeats: int
    rho: float


def simulate_examples(true: Array, kind: str, examples: int, shape: Shape, rng: Rng) -> ExampleScores:
    """Right (1) or wrong (0) of every trial about every example in every repeat.

    Args:
        true: (trials,), the true scores, between 0 and 1.
        kind: one of ``KINDS``.
        examples: how many; a multiple of ``GROUP``.
        shape: of the study.
        rng: what is drawn from.
    """
    trials = len(true)
    groups = np.arange(examples) // (GROUP if kind == "groups" else 1)
    count = int(groups[-1]) + 1
    family = rng.integers(0, FAMILIES, trials) if kind == "families" else np.arange(trials)

    def of_examples(*leading: int) -> Array:
        alone = rng.standard_normal((*leading, examples))
        if kind != "groups":
            return alone
        return np.sqrt(0.5) * (alone + rng.standard_normal((*leading, count))[..., groups])

    taste = of_examples(trials)
    if kind == "families":
        taste = np.sqrt(0.5) * (taste + of_examples(FAMILIES)[family])
    sizes = luck_sizes(kind, trials, rng)
    luck = sizes[:, None, None] * unit_luck(kind, family, shape, rng)
    folds = np.stack([(rng.permutation(count) % shape.folds)[groups] for _ in range(shape.repeats)])
    lasting = abilities(true, sizes)[:, None] + DIFFICULTY * of_examples(1) + TASTE * taste
    values = np.empty((trials, shape.repeats, examples))
    for repeat, fold in enumerate(folds):
        chance = CHANCE * rng.standard_normal((trials, examples))
        values[:, repeat] = lasting + luck[:, repeat, fold] + chance > 0
    return ExampleScores(values, folds, groups)


def luck_sizes(kind: str, trials: int, rng: Rng) -> Array:
    """Standard deviation of each trial's luck, (trials,)."""
    if kind == "no luck":
        return np.zeros(trials)
    spread = np.exp(0.55 * rng.standard_normal(trials) - 0.55**2) if kind == "heteroscedastic" else np.ones(trials)
    return LUCK * spread


def unit_luck(kind: str, family: Array, shape: Shape, rng: Rng) -> Array:
    """Luck of unit variance, (trials, repeats, folds), correlated rho between the trainings of one trial."""

    def correlated(rows: int) -> Array:
        def draw(*size: int) -> Array:
            return rng.standard_t(3, size) / np.sqrt(3.0) if kind == "heavy tails" else rng.standard_normal(size)

        whole = np.sqrt(shape.rho) * draw(rows, 1, 1)
        return np.asarray(whole + np.sqrt(1.0 - shape.rho) * draw(rows, shape.repeats, shape.folds))

    own = correlated(len(family))
    return np.sqrt(0.5) * (own + correlated(FAMILIES)[family]) if kind == "families" else own


def abilities(true: Array, sizes: Array) -> Array:
    """Abilities at which trials with luck of these sizes are right as often as their true scores say, (trials,).

    Exact for normal luck; where luck is small its variance alone matters.
    """
    return np.asarray(special.ndtri(true) * np.sqrt(DIFFICULTY**2 + TASTE**2 + CHANCE**2 + sizes**2))
