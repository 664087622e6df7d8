"""How stored probabilities are handed to the kernels, and in which pieces those read them.

Apart from the kernels, so that what compiles nothing need not import Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK_SAMPLES", "FACTORS", "LANES", "N_HIGHEST", "chunk_of_classes", "stored_for_kernels"]

# Products of so many probabilities stay within float64: 16 factors of at least 1e-15 are at least 1e-240.
FACTORS = 16
LANES = 64
CHUNK_SAMPLES = FACTORS * LANES
"""Samples whose true class's probabilities are summed at a time."""

# Class probabilities take more room: an ensemble's sums over a chunk stay within a core's cache.
_CHUNK_VALUES = 2**14

N_HIGHEST = 5
"""How many of a sample's highest probabilities are kept at hand, where there are more classes than that."""


def chunk_of_classes(n_classes: int) -> int:
    """Samples whose probabilities of every class are summed at a time."""
    return max(1, _CHUNK_VALUES // n_classes)


def stored_for_kernels(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as the kernels read it: float16 as its bits (a view), anything but float32 and float64 as float64."""
    if probabilities.dtype == np.float16:
        return probabilities.view(np.uint16)
    if probabilities.dtype in (np.float32, np.float64):
        return probabilities
    return probabilities.astype(np.float64)
