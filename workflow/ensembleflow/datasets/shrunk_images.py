"""Images shrunk to few rows and columns, by the means of squares of pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["shrunk_images", "shrunk_shape"]

_LARGEST_SIDE = 32


def shrunk_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an image once it is shrunk, at most 32 of each."""
    step = _step(height, width)
    return max(1, height // step), max(1, width // step)


def shrunk_images(images: NDArray[Any]) -> NDArray[np.float32]:
    """The means of squares of pixels, float32 (n, rows, columns, channels); smaller images as they are.

    Args:
        images: uint8 or float32 (n, height, width, channels); rows and columns that fill no square are cut off.
    """
    n, height, width, channels = images.shape
    step, (rows, columns) = _step(height, width), shrunk_shape(height, width)
    high, wide = min(step, height), min(step, width)
    squares = images[:, : rows * high, : columns * wide].reshape(n, rows, high, columns, wide, channels)
    # In float64, in which the largest float32 values add up.
    return squares.mean(axis=(2, 4), dtype=np.float64).astype(np.float32)


def _step(height: int, width: int) -> int:
    return math.ceil(max(height, width) / _LARGEST_SIDE)
