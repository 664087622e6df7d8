"""The side to which images are resized."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST_ON_CORES", "LARGEST_ON_GPU", "SMALLEST", "suitable_image_size"]

SMALLEST = 8
"""The config takes no smaller ones."""

LARGEST_ON_CORES = 64
"""Side in pixels: twice the side is four times the work."""

LARGEST_ON_GPU = 128
"""Where a search job has a GPU."""

_STEP = 8


def suitable_image_size(sizes: NDArray[np.int64], largest: int) -> int:
    """The median of the images' longer sides, to the nearest multiple of 8, within bounds.

    Squares of one size within the bounds keep theirs, so that their pixels stay as they are.

    Args:
        sizes: int64 (n, 2), widths and heights in pixels; of no image the answer is `largest`.
        largest: side in pixels that is not exceeded.
    """
    if not len(sizes):
        return largest
    sides = np.unique(sizes)
    if len(sides) == 1 and SMALLEST <= sides[0] <= largest:
        return int(sides[0])
    median = float(np.median(sizes.max(axis=1)))
    return int(np.clip(_STEP * round(median / _STEP), SMALLEST, largest))
