"""What a score loses away from the best learning rate, and what is known of that before anything is trained.

With x = log rate, the optimum of an adapter is x* = mu - b . features, and away from it an adapter keeps a share of
what it can learn,

    kept(z) = exp(-(|z| / width)^power),  z = x - x*,

flat at the top, a cliff where nothing is learned in the steps there are (below) and one where training becomes unstable
(above), each side with a width and a power of its own. Short trainings leave little room between the two.

numpy only.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from lora_search.statistics.comparison import Array

_SHAPE = (
    # name, prior mean, prior standard deviation
    ("mu", 0.0, 1.2),
    ("log rank", 0.42, 0.18),
    ("log layers", 0.35, 0.20),
    ("log modules per layer", 0.35, 0.20),
    ("log scale", 0.80, 0.25),
    ("log width below", -0.05, 0.35),
    ("log power below", 1.10, 0.30),
    ("log width above", 0.60, 0.60),
    ("log power above", 0.90, 0.25),
    ("shift", 0.15, 0.25),
)
"""The slopes are those of the literature that ``rates`` names; the widths are wide, for short trainings leave less room
between the cliffs than long ones."""
SIZE = len(_SHAPE)
"""How many parameters a shape has."""
MEAN = np.array([mean for _, mean, _ in _SHAPE])
DEVIATION = np.array([deviation for *_, deviation in _SHAPE])
MU, SLOPES, BELOW, POWER_BELOW, ABOVE, POWER_ABOVE, SHIFT = 0, slice(1, 5), 5, 6, 7, 8, 9
_NEAREST = 1e-9
_DRAWS = 200


def design(features: Array) -> Array:
    """Derivative of the optimum by the shape: ``(adapters, SIZE)``."""
    found = np.zeros((len(features), SIZE))
    found[:, MU] = 1.0
    found[:, SLOPES] = -features
    return found


def drop(away: Array, shape: Array) -> tuple[Array, Array, dict[int, Array]]:
    """Share lost at a distance from the optimum; its derivative by distance; and by the widths and the powers."""
    below, inside, ratio, power = _inside(away, shape)
    kept = np.exp(-inside)
    slope = kept * inside * power
    by_distance = slope / np.where(below, np.minimum(away, -_NEAREST), np.maximum(away, _NEAREST))
    by_width, by_power = -slope, slope * np.log(ratio)
    return (
        1.0 - kept,
        by_distance,
        {
            BELOW: np.where(below, by_width, 0.0),
            POWER_BELOW: np.where(below, by_power, 0.0),
            ABOVE: np.where(below, 0.0, by_width),
            POWER_ABOVE: np.where(below, 0.0, by_power),
        },
    )


def expected_drop(away: Array, shapes: Array, weights: Array) -> Array:
    """Share lost, in the mean over shapes.

    Args:
        away: ``(..., shapes)`` distance from the optimum that each of them has.
        shapes: ``(shapes, SIZE)``. weights: ``(shapes,)``, of sum 1.
    """
    _, inside, _, _ = _inside(away, shapes)
    return np.asarray(1.0 - np.exp(-inside) @ weights)


def _inside(away: Array, shape: Array) -> tuple[NDArray[np.bool_], Array, Array, Array]:
    below = away < 0
    width = np.exp(np.where(below, shape[..., BELOW], shape[..., ABOVE]))
    power = np.exp(np.where(below, shape[..., POWER_BELOW], shape[..., POWER_ABOVE]))
    ratio = np.maximum(np.abs(away), _NEAREST) / width
    return below, ratio**power, ratio, power


def draws(shape: Array, covariance: Array) -> Array:
    """Shapes that may be, ``(draws, SIZE)``: by the same random numbers every time, their mean the shape given."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(shape + _normal_points() @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)


@cache
def _normal_points() -> Array:
    """Standard normal points, ``(draws, SIZE)``, in pairs of opposite ones."""
    half = np.random.default_rng(0).standard_normal((_DRAWS // 2, SIZE))
    return np.concatenate([half, -half])
