"""Images to predict, from image files and NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ensembleflow import arguments
from ensembleflow.datasets import read_image, read_image_size
from ensembleflow.datasets.float_values import as_float32
from ensembleflow.errors import DatasetError
from ensembleflow.serving.image_files import ARRAY_SUFFIX, shown_name
from ensembleflow.serving.signature import DATATYPES

__all__ = ["NamedImages", "decode_image", "read_batches", "read_images", "unreadable"]

# Pillow knows others, some of which start programs; none of them comes from a camera, a microscope or a browser.
_SENT_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_MAX_SENT_PIXELS = 64_000_000


_MAX_BATCH_FILES, _BATCH_BYTES = 1024, 64 * 2**20
_LISTS = ("files", "indices", "resized", "faults")


@dataclass(frozen=True)
class NamedImages:
    """Images and where each comes from.

    Attributes:
        images: (images, *image_shape), uint8 or float32.
        files: each image's file.
        indices: each image's place in its file; None if the file is one image.
        resized: the files that were resized, with their former width and height in pixels.
        faults: the files that cannot be read, each with its reason.
    """

    images: npt.NDArray[Any]
    files: list[str]
    indices: list[int | None]
    resized: list[tuple[str, int, int]]
    faults: list[str] = field(default_factory=list)


def read_images(paths: Sequence[str | Path], image_shape: tuple[int, ...], image_dtype: str = "uint8") -> NamedImages:
    """Read image files, as the training images were read, and `.npy` arrays.

    Args:
        paths: image files of any size, and uint8 arrays of one or many images of exactly `image_shape`; where
            `image_dtype` is `float32`, only arrays, of whole numbers or floats.
        image_shape: (height, width, channels), or of other samples their shape.
        image_dtype: `uint8` or `float32`.

    Raises:
        ArgumentError: an argument of another kind.
        DatasetError: files are missing or unreadable; one message names all of them.
    """
    paths, image_dtype = arguments.paths("paths", paths), arguments.one_of("image_dtype", image_dtype, tuple(DATATYPES))
    checked = arguments.image_shape if image_dtype == "uint8" else arguments.shape
    image_shape = checked("image_shape", image_shape)
    named = _read_all([_read(path, image_shape, image_dtype) for path in paths], image_shape, image_dtype)
    if named.faults:
        raise unreadable(named.faults, len(paths), image_shape, image_dtype)
    return named


def read_batches(
    paths: Sequence[str | Path], image_shape: tuple[int, ...], image_dtype: str = "uint8"
) -> Iterator[NamedImages]:
    """Read like `read_images`, but so many at a time as take little memory; what cannot be read is in `faults`."""
    n_files = max(1, min(_MAX_BATCH_FILES, _BATCH_BYTES // math.prod(image_shape)))
    with ThreadPoolExecutor() as threads:  # Pillow decodes without holding Python's lock
        for start in range(0, len(paths), n_files):
            reading = partial(_read, image_shape=image_shape, image_dtype=image_dtype)
            yield _read_all(list(threads.map(reading, paths[start : start + n_files])), image_shape, image_dtype)


def unreadable(
    faults: Sequence[str], n_files: int, image_shape: tuple[int, ...], image_dtype: str = "uint8"
) -> DatasetError:
    """The message that names files, each with its reason, of so many."""
    kinds = "image files, or .npy files with uint8 arrays" if image_dtype == "uint8" else ".npy files with arrays"
    return DatasetError(
        f"{len(faults)} of {n_files} files cannot be predicted",
        found="\n            ".join(faults),
        expected=f"{kinds} of shape {_shape_text(image_shape)}",
    )


def decode_image(content: bytes, image_shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Read an image that was sent, as the training images were read.

    Args:
        content: an image file of one of the common formats, of at most 64 million pixels.
        image_shape: (height, width, channels).

    Returns:
        uint8 (height, width, channels), and the file's own width and height in pixels.

    Raises:
        DatasetError: it is no such image.
    """
    try:
        width, height = read_image_size(BytesIO(content), _SENT_FORMATS)
    except Image.DecompressionBombError as error:
        raise DatasetError("an image is too large", found=error) from None
    except Exception as error:
        # A broken file leads Pillow's decoders to raise almost anything.
        found = f"{len(content)} bytes" if isinstance(error, UnidentifiedImageError) else error
        expected = f"an image file ({', '.join(_SENT_FORMATS)})"
        raise DatasetError("an image cannot be read", found=found, expected=expected) from None
    if width * height > _MAX_SENT_PIXELS:
        found, expected = f"{width}x{height} pixels", f"at most {_MAX_SENT_PIXELS} pixels"
        raise DatasetError("an image is too large", found=found, expected=expected)
    return read_image(BytesIO(content), _of_image(image_shape), _SENT_FORMATS), (width, height)


def _of_image(image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    height, width, channels = image_shape
    return height, width, channels


def _read(path: str | Path, image_shape: tuple[int, ...], image_dtype: str) -> NamedImages:
    """One file's images, or its fault."""
    name = shown_name(path)
    none = np.empty((0, *image_shape), image_dtype)
    try:
        if Path(path).suffix.lower() == ARRAY_SUFFIX:
            images, several = _read_array(path, image_shape, image_dtype)
            indices: list[int | None] = list(range(len(images))) if several else [None]
            return NamedImages(images, [name] * len(images), indices, [])
        if image_dtype != "uint8":
            raise DatasetError("an image file is no array", found="no .npy file, and the ensemble takes arrays")
        image = read_image(path, _of_image(image_shape))
        width, height = read_image_size(path)
    except DatasetError as error:
        return NamedImages(none, [], [], [], [f"{name}: {error.found}"])
    resized = [(name, width, height)] if (height, width) != image_shape[:2] else []
    return NamedImages(image[np.newaxis], [name], [None], resized)


def _read_all(parts: Sequence[NamedImages], image_shape: tuple[int, ...], image_dtype: str) -> NamedImages:
    return NamedImages(
        np.concatenate([np.empty((0, *image_shape), image_dtype), *(part.images for part in parts)]),
        *(list(chain.from_iterable(getattr(part, each) for part in parts)) for each in _LISTS),
    )


def _read_array(path: str | Path, image_shape: tuple[int, ...], image_dtype: str) -> tuple[npt.NDArray[Any], bool]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DatasetError("an array cannot be read", where=path, found=error.strerror or error) from None
    except (ValueError, EOFError) as error:
        raise DatasetError("an array cannot be read", where=path, found=str(error).splitlines()[0]) from None
    shapes = [image_shape]
    if len(image_shape) == 3 and image_shape[2] == 1:
        shapes.append(image_shape[:2])
    taken = array.dtype == np.uint8 if image_dtype == "uint8" else array.dtype.kind in "uif"
    for shape in shapes:
        if taken and shape in (array.shape, array.shape[1:]):
            images = np.asarray(array).reshape(-1, *image_shape)
            return images if image_dtype == "uint8" else as_float32(images, str(path)), array.shape != shape
    raise DatasetError("an array has another shape or type", where=path, found=f"{array.dtype} array {array.shape}")


def _shape_text(image_shape: tuple[int, ...]) -> str:
    lengths = ", ".join(map(str, image_shape))
    return f"({lengths}) or (n, {lengths})"
