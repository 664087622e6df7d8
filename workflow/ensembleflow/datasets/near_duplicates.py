"""Images that are nearly those that are trained with: saved again, made brighter, or taken twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.shrunk_images import shrunk_images

__all__ = ["CORRELATION", "NearDuplicates", "find_near_duplicates", "outlines"]

CORRELATION = 0.995
"""From which correlation on two images, shrunk to 32 rows and columns at most, are nearly the same.

Of 10,000 test images of Fashion-MNIST 20 reach it with a training image, mostly the same article taken twice; 0.99 is
reached by 89, half of them two articles alike. The nearest of scikit-learn's digits, 8 pixels a side, have 0.989. What
JPEG at quality 75 leaves of Fashion-MNIST's images, 28 pixels a side, is 0.997 in the median.
"""

_FEWEST_PIXELS = 8  # a side, below which different images are alike by chance
_WAVES = 4  # of each axis, the constant one among them
_NEIGHBOURS = 3
_IMAGES_AT_ONCE = 256
_MOST_BYTES_COMPARED = 2**31
_MAX_EXAMPLES = 10
_FAR = 1e9


@dataclass(frozen=True)
class NearDuplicates:
    """Images that are nearly, but not pixel for pixel, among those to train with.

    Attributes:
        n_valid: of the validation.
        n_test: of the test.
        examples: the first ten pairs, by name.
    """

    n_valid: int = 0
    n_test: int = 0
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.n_valid or self.n_test)


def outlines(images: NDArray[Any]) -> NDArray[np.float32]:
    """What images are searched by, float32 (n, 15): the longest waves of their standardised pixels.

    The distance between two images' outlines is at most that of all their standardised pixels, for the cosine transform
    keeps lengths.

    Args:
        images: (n, ...); of others than images of 8 pixels a side or more there are none, (0, 15).
    """
    found = [np.empty((0, _WAVES**2 - 1), np.float32)]
    if images.ndim == 4 and min(images.shape[1:3]) >= _FEWEST_PIXELS:
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            # Channels are averaged: no two images come apart by that.
            pixels = _standardised(images[start : start + _IMAGES_AT_ONCE]).mean(axis=3)
            waves = _cosines(pixels.shape[1]) @ pixels @ _cosines(pixels.shape[2]).T
            found.append(waves.reshape(len(waves), -1)[:, 1:].astype(np.float32))
    return np.concatenate(found)


def find_near_duplicates(
    images: LabelledImages,
    splits: Mapping[str, NDArray[np.int64]],
    contents: Mapping[str, NDArray[np.uint64]],
    outlines: Mapping[str, NDArray[np.float32]],
    stored: Mapping[str, NDArray[Any]],
) -> NearDuplicates:
    """Count the images of validation and test that correlate with a training image by `CORRELATION` or more.

    Each is compared with the three training images of the nearest outlines, found by a k-d tree; where that would read
    more than 2 GB, with those of the nearest outlines of all.

    Args:
        images: the images' names.
        splits: for each of train, valid and test the indices of its images.
        contents: for each the checksums of its images' pixels, in the same order: identical images are left out.
        outlines: for each the images' `outlines`, in the same order.
        stored: for each the images themselves, to read some of.
    """
    from scipy.spatial import cKDTree  # scikit-learn brings it along

    if not len(outlines["train"]):
        return NearDuplicates()
    # Where values are too large to be compared, an image is put far from all others.
    tree = cKDTree(np.nan_to_num(outlines["train"], nan=_FAR, posinf=_FAR, neginf=_FAR))
    # Of standardised pixels the squared distance is 2 - 2 x correlation.
    radius = np.sqrt(2 - 2 * CORRELATION)
    n_most = max(1, _MOST_BYTES_COMPARED // (2 * stored["train"][:1].nbytes))
    counts, examples = {}, []
    for part in ("valid", "test"):
        asked = np.nan_to_num(outlines[part], nan=-_FAR, posinf=-_FAR, neginf=-_FAR)
        distances, places = tree.query(asked, k=_NEIGHBOURS, distance_upper_bound=radius)
        near = np.isfinite(distances) & ~np.isin(contents[part], contents["train"])[:, np.newaxis]
        here, rank = np.nonzero(near)
        nearest = np.sort(np.argsort(distances[here, rank], kind="stable")[:n_most])
        here, there = here[nearest], places[here[nearest], rank[nearest]]
        alike = _correlations(stored[part], here, stored["train"], there) >= CORRELATION
        found, first = np.unique(here[alike], return_index=True)
        counts[part] = len(found)
        for one, other in zip(there[alike][first][:_MAX_EXAMPLES], found[:_MAX_EXAMPLES], strict=True):
            names = images.name(int(splits["train"][one])), images.name(int(splits[part][other]))
            examples.append(" ≈ ".join(names))
    return NearDuplicates(counts["valid"], counts["test"], tuple(examples[:_MAX_EXAMPLES]))


def _standardised(images: NDArray[Any]) -> NDArray[np.float64]:
    """Shrunk images, in each channel of mean 0 and length 1, float64; a channel that is constant is 0."""
    pixels = shrunk_images(images).astype(np.float64)
    centred = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    lengths = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
    # Below float32's resolution it is a rounding error of equal values.
    largest = np.abs(pixels).max(axis=(1, 2), keepdims=True)
    constant = lengths <= np.finfo(np.float32).eps * largest * np.sqrt(pixels[0, ..., 0].size)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, lengths))


def _cosines(n_pixels: int) -> NDArray[np.float64]:
    """The longest waves of the orthonormal cosine transform, (waves, n_pixels)."""
    waves = np.cos(np.pi / n_pixels * np.arange(_WAVES)[:, np.newaxis] * (np.arange(n_pixels) + 0.5))
    return waves / np.linalg.norm(waves, axis=1, keepdims=True)


def _correlations(
    images: NDArray[Any], places: NDArray[np.int64], others: NDArray[Any], other_places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The correlation of each pair's shrunk pixels, the mean over channels that are not constant in both."""
    found = [np.empty(0)]
    for start in range(0, len(places), _IMAGES_AT_ONCE):
        these = slice(start, start + _IMAGES_AT_ONCE)
        one, other = _standardised(images[places[these]]), _standardised(others[other_places[these]])
        counting = (one != 0).any(axis=(1, 2)) | (other != 0).any(axis=(1, 2))
        found.append((one * other).sum(axis=(1, 2, 3)) / np.maximum(1, counting.sum(axis=1)))
    return np.concatenate(found)
