"""By how much class probabilities may miss what they should be, and still be those of a softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["OUTSIDE_BY", "sum_off_by"]

OUTSIDE_BY = 1e-3
"""A probability this far outside 0 … 1 is still rounding."""

_SUM_OFF_BY = {np.dtype(np.float16): 2e-2}
_SUM_USUALLY_OFF_BY = 2e-3


def sum_off_by(dtype: np.dtype[Any]) -> float:
    """How far from 1 the sum of a sample's probabilities may be, in the precision in which they come."""
    return _SUM_OFF_BY.get(dtype, _SUM_USUALLY_OFF_BY)
