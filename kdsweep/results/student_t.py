"""Student's t distribution, which neither numpy nor the standard library has."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray


def two_sided_p(t: ArrayLike, degrees: int) -> NDArray[np.float64]:
    """The probability that |T| is at least |t|, to about 1e-12 in absolute terms.

    Args:
        t: Any shape; infinite values give 0.
        degrees: Degrees of freedom, a positive whole number.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: a finite series for whole degrees of freedom.
    """
    angle = np.arctan(np.abs(np.asarray(t, dtype=float)) / math.sqrt(degrees))
    sine, cosine = np.sin(angle), np.cos(angle)
    odd = degrees % 2
    term = cosine if odd else np.ones_like(angle)
    series = np.zeros_like(angle)
    for power in range(odd, degrees - 1, 2):
        series = series + term
        term = term * cosine**2 * (power + 1) / (power + 2)
    inside = 2 / math.pi * (angle + sine * series) if odd else sine * series
    return np.asarray(np.clip(1 - inside, 0.0, 1.0))


@cache
def quantile(p: float, degrees: int) -> float:
    """The t that a two-sided test at level p needs: P(|T| >= t) = p, found by bisection.

    Args:
        p: Between 0 and 1. Below about 1e-10 the result loses digits, as `two_sided_p` does.
        degrees: Degrees of freedom, a positive whole number.
    """
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > p else (low, middle)
    return high
