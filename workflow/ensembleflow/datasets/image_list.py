"""Image files, read as RGB of one size when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.image_file import read_image
from ensembleflow.datasets.labelled_images import UnreadableImagesError
from ensembleflow.datasets.source_state import file_checksum
from ensembleflow.errors import DatasetError

__all__ = ["image_reader"]


def image_reader(
    files: Sequence[str], image_shape: tuple[int, int, int], threads: int
) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.uint8]], NDArray[np.uint64]]:
    """What `LabelledImages` holds of image files: a function that reads them, and their checksums as it does.

    Args:
        files: the files' paths.
        image_shape: (height, width, 3), to which the images are resized.
        threads: images decoded side by side; what is read does not depend on it. Threads do, for Pillow decodes and
            resizes without holding Python's lock.
    """
    checksums = np.zeros(len(files), np.uint64)

    def read_one(index: int) -> NDArray[np.uint8] | DatasetError:
        checksums[index] = file_checksum(files[index])
        try:
            return read_image(files[index], image_shape)
        except DatasetError as error:
            return error

    def read(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(indices), *image_shape), np.uint8)
        unreadable: dict[int, str] = {}
        with ThreadPoolExecutor(threads) as pool:
            for place, image in enumerate(pool.map(read_one, indices.tolist())):
                if isinstance(image, DatasetError):
                    unreadable[int(indices[place])] = f"{image.where}: {image.found}"
                else:
                    images[place] = image
        if unreadable:
            raise UnreadableImagesError(unreadable)
        return images

    return read, checksums
