"""What every source gives: class names, one label an image, and the images when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.some import lines_of_some
from ensembleflow.errors import DatasetError

__all__ = ["LabelledImages", "UnreadableImagesError"]


class UnreadableImagesError(DatasetError):
    """Images cannot be read; one message names them, the first ten of many.

    Args:
        faults: for each such image, by its index in the source, where it lies and why it cannot be read.

    Attributes:
        lines: all of them, as told.
    """

    def __init__(self, faults: Mapping[int, str]) -> None:
        self.faults = dict(faults)
        self.lines = sorted(self.faults.values())
        super().__init__(
            "an image cannot be read" if len(self.lines) == 1 else f"{len(self.lines)} images cannot be read",
            where=lines_of_some(self.lines),
            hint="mend or remove them, or leave them out with dataset.unreadable_images: skip",
        )


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images, read when asked for, so that a source may be larger than the memory.

    Attributes:
        class_names: name of class i at place i.
        labels: int64 (n_images,), places in `class_names`.
        image_shape: (height, width, channels), the same for all images; of float32 samples any shape.
        image_dtype: `uint8` or `float32`.
        read: takes indices, int64 (n,), and gives these images as `image_dtype` (n, *image_shape);
            raises UnreadableImagesError if some of them cannot be read, or another DatasetError.
        own_split: for each part (train, valid, test) that the source itself sets apart, the indices of its images,
            int64; without `train` the images of no other part are left to be split.
        groups: str (n_images,), the group of each image, none of which may stand in two parts; None without groups.
        weights: float64 (n_images,), above 0: how much each image counts in training; None if all count alike.
        images_a_read: how many images `read` had best be asked for at once; None if it does not matter.
        name_of: gives an image's name by its index; None where images have but their number.
        faults: what is wrong with the source but hinders nobody from reading these images.
        file_checksums: for each image the checksum of its file, uint64, filled in as it is read; None if images have no
            file each.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    image_shape: tuple[int, ...]
    read: Callable[[NDArray[np.int64]], NDArray[Any]]
    image_dtype: str = "uint8"
    own_split: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    groups: NDArray[np.str_] | None = None
    weights: NDArray[np.float64] | None = None
    images_a_read: int | None = None
    name_of: Callable[[int], str] | None = None
    faults: tuple[DatasetError, ...] = ()
    file_checksums: NDArray[np.uint64] | None = None

    def name(self, index: int) -> str:
        """What to call an image."""
        return f"image {index}" if self.name_of is None else self.name_of(index)

    def without(self, indices: Collection[int]) -> LabelledImages:
        """The same images but these; a fault in them is told by their places among those that are left."""
        kept = np.setdiff1d(np.arange(len(self.labels), dtype=np.int64), np.fromiter(indices, dtype=np.int64))
        own = {part: np.flatnonzero(np.isin(kept, own)) for part, own in self.own_split.items()}
        groups = None if self.groups is None else self.groups[kept]
        weights = None if self.weights is None else self.weights[kept]

        def read(places: NDArray[np.int64]) -> NDArray[Any]:
            try:
                return self.read(kept[places])
            except UnreadableImagesError as error:
                faults = {int(np.searchsorted(kept, index)): told for index, told in error.faults.items()}
                raise UnreadableImagesError(faults) from None

        def name_of(place: int) -> str:
            return self.name(int(kept[place]))

        return replace(
            self,
            labels=self.labels[kept],
            read=read,
            own_split=own,
            groups=groups,
            weights=weights,
            name_of=name_of,
        )
