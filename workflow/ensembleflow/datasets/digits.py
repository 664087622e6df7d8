"""The handwritten digits that scikit-learn carries: nothing to download."""

from __future__ import annotations

import numpy as np

from ensembleflow.datasets.labelled_images import LabelledImages

__all__ = ["read_digits"]

_WHITE = 16  # scikit-learn's digits are counts of ink from 0 to 16


def read_digits() -> LabelledImages:
    """1,797 grey images of 8×8 pixels in 10 classes, rescaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits  # imported late: scikit-learn takes a second to load

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _WHITE)).astype(np.uint8)[..., np.newaxis]
    return LabelledImages(
        class_names=tuple(str(name) for name in bunch.target_names),
        labels=bunch.target.astype(np.int64),
        image_shape=images.shape[1:],
        read=images.__getitem__,
    )
