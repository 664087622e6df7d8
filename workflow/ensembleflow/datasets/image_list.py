"""Image files, read as RGB of one size when they are asked for."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
        fault = _fault_of(files[index])
        if fault is not None:
            return DatasetError("an image cannot be read", where=files[index].replace("\0", "\\0"), found=fault)
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


def _fault_of(name: str) -> str | None:
    """Why a file is not even opened: a pipe would be waited for, and some names no file can have."""
    try:
        return None if stat.S_ISREG(Path(name).stat().st_mode) else "it is no file"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
