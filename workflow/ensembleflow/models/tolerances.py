"""By how much class probabilities may miss what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ANSWER_TOLERANCE", "OUTSIDE_BY", "cached_answer_tolerance", "sum_off_by"]

ANSWER_TOLERANCE = 1e-4
"""By how much two float32 answers of one model to one image may differ.

Batch sizes, thread counts, processors and engines change the order of float32 sums, hence answers by about 1e-6; a
wrong model, wrong pixels or bfloat16 change them by 1e-3 and more.
"""


def cached_answer_tolerance(dtype: np.dtype[Any]) -> float:
    """By how much an answer may differ from one that is cached in a floating-point type."""
    # A probability is stored within half a step of the numbers just below 1.
    return ANSWER_TOLERANCE + float(np.finfo(dtype).epsneg) / 2


OUTSIDE_BY = 1e-3
"""A probability this far outside 0 … 1 is still rounding."""

_SUM_OFF_BY = {np.dtype(np.float16): 2e-2}
_SUM_USUALLY_OFF_BY = 2e-3


def sum_off_by(dtype: np.dtype[Any]) -> float:
    """How far from 1 the sum of a sample's probabilities may be, in the precision in which they come."""
    return _SUM_OFF_BY.get(dtype, _SUM_USUALLY_OFF_BY)
