"""Student's t distribution, which NumPy and the standard library lack."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray


def two_sided_p(t: ArrayLike, degrees: int) -> NDArray[np.float64]:
    """Probability that |T| is at least |t|, with an absolute error of about 1e-12.

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
    """Critical value of a two-sided test at level p: the t with P(|T| >= t) = p, found by bisection.

    Args:
        p: Between 0 and 1. Below about 1e-10 the result loses precision, because `two_sided_p` does.
        degrees: Degrees of freedom, a positive whole number.
    """
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > p else (low, middle)
    return high
