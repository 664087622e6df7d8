"""Made-up images of any shape and number, for sizing a cluster before the real ones are there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.labelled_images import LabelledImages

__all__ = ["make_synthetic_images"]

# A class's prototype is so many squares a side: coarse enough for a network's first layers to see.
_SQUARES = 4
_PROTOTYPE_SHARE = 0.25
_PROTOTYPES, _NOISE = 0, 1


def make_synthetic_images(
    n_images: int, image_shape: tuple[int, int, int], n_classes: int, seed: int
) -> LabelledImages:
    """Images that can be learnt: a quarter of each is its class's prototype, the rest noise.

    Image i is of class i modulo `n_classes`, and made from (seed, i) alone when it is asked for: nothing is kept,
    whatever the number of images.

    Args:
        n_images: images in all splits together.
        image_shape: (height, width, channels) in pixels.
        n_classes: number of classes.
        seed: another seed gives other images.
    """
    height, width, channels = image_shape
    prototypes = np.random.default_rng([seed, _PROTOTYPES]).random((n_classes, _SQUARES, _SQUARES, channels))
    rows, columns = np.arange(height) * _SQUARES // height, np.arange(width) * _SQUARES // width

    def make(index: int) -> NDArray[np.uint8]:
        noise = np.random.default_rng([seed, _NOISE, index]).random(image_shape, dtype=np.float32)
        prototype = prototypes[index % n_classes][rows][:, columns]
        mixed = _PROTOTYPE_SHARE * prototype + (1 - _PROTOTYPE_SHARE) * noise
        return np.rint(255 * mixed).astype(np.uint8)

    return LabelledImages(
        class_names=tuple(str(label) for label in range(n_classes)),
        labels=np.arange(n_images, dtype=np.int64) % n_classes,
        image_shape=image_shape,
        read=lambda indices: np.stack([make(index) for index in indices.tolist()]),
    )
