"""Leaving images out, whichever turn out to be unreadable, and however late."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError


def images_with_faults(n_images: int, faults: set[int]) -> LabelledImages:
    """Each image and its label are its own number; those among the faults cannot be read."""

    def read(indices: np.ndarray) -> np.ndarray:
        if found := faults & set(indices.tolist()):
            raise UnreadableImagesError({index: f"image {index}" for index in found})
        return np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), 1, 1, 1))

    return LabelledImages(("a",), np.arange(n_images), (1, 1, 1), read)


@given(st.integers(1, 30), st.lists(st.sets(st.integers(0, 29), min_size=1, max_size=5), max_size=4))
def test_the_images_that_fault_are_those_left_out_though_each_pass_finds_others(
    n_images: int, passes: list[set[int]]
) -> None:
    faults: set[int] = set()
    images = images_with_faults(n_images, faults)
    for found in passes:
        faults |= found
        try:
            images.read(np.arange(len(images.labels)))
        except UnreadableImagesError as error:
            images = images.without(error.faults)
    readable = [index for index in range(n_images) if index not in faults]
    assert images.labels.tolist() == readable
    assert images.read(np.arange(len(readable))).ravel().tolist() == readable
