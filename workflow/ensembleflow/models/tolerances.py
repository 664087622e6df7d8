"""By how much class probabilities may miss what they should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = [
    "ANSWER_TOLERANCE",
    "BFLOAT16_ANSWER_TOLERANCE",
    "LONE_IMAGES",
    "OUTSIDE_BY",
    "answer_tolerance",
    "cache_rounding",
    "sum_off_by",
]

ANSWER_TOLERANCE = 1e-4
"""By how much two float32 answers of one model to one image may differ.

Batch sizes, thread counts, processors and engines change the order of float32 sums, hence answers by about 1e-6; a
wrong model, wrong pixels or bfloat16 change them by 1e-3 and more.
"""

BFLOAT16_ANSWER_TOLERANCE = 0.1
"""By how much an answer that was computed in bfloat16 may differ from the float32 one.

Such numbers have 8 significant bits: a logit of 10 is off by 0.02 from its own rounding alone, and each layer adds.
"""

LONE_IMAGES = 20
"""So many images are compared in batches of one as well, which an engine may compute by other kernels."""

_BY_ENGINE = {"openvino_bfloat16": BFLOAT16_ANSWER_TOLERANCE}


def answer_tolerance(engines: Iterable[str]) -> float:
    """By how much the mean of answers by these engines may differ from the exported functions' in float32."""
    return max((_BY_ENGINE.get(engine, ANSWER_TOLERANCE) for engine in engines), default=ANSWER_TOLERANCE)


def cache_rounding(dtype: np.dtype[Any]) -> float:
    """By how much a probability may differ from itself as cached in a floating-point type."""
    # It is stored within half a step of the numbers just below 1.
    return float(np.finfo(dtype).epsneg) / 2


OUTSIDE_BY = 1e-3
"""A probability this far outside 0 … 1 is still rounding."""

_SUM_OFF_BY = {np.dtype(np.float16): 2e-2}
_SUM_USUALLY_OFF_BY = 2e-3


def sum_off_by(dtype: np.dtype[Any]) -> float:
    """How far from 1 the sum of a sample's probabilities may be, in the precision in which they come."""
    return _SUM_OFF_BY.get(dtype, _SUM_USUALLY_OFF_BY)
