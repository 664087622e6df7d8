"""What every source gives: class names, one label an image, and the images one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelledImages"]


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images, read when asked for, so that a source may be larger than the memory.

    Attributes:
        class_names: name of class i at place i.
        labels: int64 (n_images,), places in `class_names`.
        image_shape: (height, width, channels), the same for all images.
        read: gives image i as uint8 (height, width, channels), or raises DatasetError.
        test_indices: the images that the source itself sets aside for the test, int64, or None.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    image_shape: tuple[int, int, int]
    read: Callable[[int], NDArray[np.uint8]]
    test_indices: NDArray[np.int64] | None = None
