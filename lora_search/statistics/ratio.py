"""The ratio of two uncertain numbers, with bounds that are honest where the second may be nothing.

Fieller (1954): for estimates (a, b) of a normal pair with variances V_a, V_b and covariance C, theta is within the
confidence set of a / b when a - theta b is not distinguishable from nothing,

    (a - theta b)^2 <= t^2 (V_a - 2 theta C + theta^2 V_b),

a quadratic inequality in theta. Where b is more than t of its own standard deviations from 0 the set is an interval
around a / b; where it is not, every ratio may be true, or all but some: then there is none to speak of.
"""

from __future__ import annotations

import math


def ratio_interval(
    numerator: float, denominator: float, *, variances: tuple[float, float], covariance: float, t: float
) -> tuple[float, float] | None:
    """Bounds of numerator / denominator.

    Args:
        numerator, denominator: the estimates.
        variances: of them. covariance: of one with the other; brought within what variances allow.
        t: how many standard deviations a bound is away, the quantile of the t distribution.

    Returns:
        (low, high); None where the denominator cannot be told from nothing.
    """
    most = math.sqrt(max(variances[0], 0.0) * max(variances[1], 0.0))
    shared = min(max(covariance, -most), most)
    square = denominator**2 - t**2 * variances[1]
    if not square > 0 or not math.isfinite(square + numerator + variances[0]):
        return None
    middle = numerator * denominator - t**2 * shared
    constant = numerator**2 - t**2 * variances[0]
    reach = math.sqrt(max(middle**2 - square * constant, 0.0))
    return (middle - reach) / square, (middle + reach) / square
