"""Confidence intervals of a mean, and what they say of a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

__all__ = ["CANNOT_TELL", "FAILS", "HOLDS", "mean_interval", "verdict_of"]

HOLDS, FAILS, CANNOT_TELL = "holds", "does not hold", "cannot be told"
_CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the bounds of its 95 % confidence interval (Student's t); of a single value these are infinite."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    from scipy.stats import t  # scikit-learn brings it along

    half = float(t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def verdict_of(low: float, high: float, margin: float = 0.0) -> str:
    """What an interval of a difference says of a claim that speaks for differences above 0.

    Args:
        low: lower bound of the interval.
        high: upper bound.
        margin: a claim of "no worse" is one of a difference above minus this.
    """
    if low > -margin:
        return HOLDS
    return FAILS if high < -margin else CANNOT_TELL
