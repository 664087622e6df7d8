"""Images and labels as NumPy or HDF5 arrays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.config import Samples
from ensembleflow.datasets.array_store import EXPECTED_CONTAINER, StoredArray, open_arrays
from ensembleflow.datasets.class_labels import classes_of_labels
from ensembleflow.datasets.float_values import tell_float_values
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import DatasetError

__all__ = ["labelled_arrays", "read_arrays"]

_OWN_KEYS = ("images", "labels")
_KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
# Images have up to so many channels where nobody has said otherwise; what h5py and NumPy have axes for.
_CHANNELS, _MAX_RANK = 4, 32
# Where a single image costs a whole block, the fewer reads the better.
_BYTES_A_READ, _BYTES_A_READ_IN_BLOCKS = 2**26, 2**28

_LOG = logging.getLogger(__name__)


def read_arrays(path: str | Path, samples: Samples = "images") -> LabelledImages:
    """Open labelled images in an `.npz` file, an HDF5 file, or a folder of `.npy` files.

    The arrays are `images` and `labels`, or `x_train`, `y_train`, `x_test`, `y_test`, as Keras's datasets have them, of
    which the last two are set aside for the test; and, if there is one, `class_names`. Images have shape
    (n, height, width) or (n, height, width, channels); uint8 stays uint8, whole numbers of other types and floats are
    float32, their values as they are. Labels: see `classes_of_labels`.

    Args:
        path: the file or folder.
        samples: `arrays` takes samples of any rank as they are, all as float32.

    Raises:
        DatasetError: an array is missing, damaged, of another shape or type, or has values that are no numbers.
    """
    openers = open_arrays(path)
    images, labels = _parts(path, openers)
    return labelled_arrays(images, labels, openers["class_names"]() if "class_names" in openers else None, samples)


def labelled_arrays(
    images: list[StoredArray], labels: list[StoredArray], names: StoredArray | None, samples: Samples = "images"
) -> LabelledImages:
    """Arrays of images and of labels as one source; of two each, the second is set aside for the test.

    Args:
        images: arrays as `read_arrays` describes them.
        labels: one for each array of images; see `classes_of_labels`.
        names: class names, or None.
        samples: as of `read_arrays`.

    Raises:
        DatasetError: arrays do not belong together, are of another shape or type, or have values that are no numbers.
    """
    for part_images, part_labels in zip(images, labels, strict=True):
        _check_lengths(part_images, part_labels)
    image_shape = _common_shape(images, samples)
    places, class_names = classes_of_labels(
        [(_where(part), _whole(part)) for part in labels], None if names is None else (_where(names), _whole(names))
    )
    as_pixels = samples == "images" and images[0].dtype == np.uint8
    dtype = "uint8" if as_pixels else "float32"
    if not as_pixels:
        for part in images:
            tell_float_values(part)
    starts = np.cumsum([0, *map(len, images)])

    def read(indices: NDArray[np.int64]) -> NDArray[Any]:
        if len(images) == 1:
            return images[0].take(indices).astype(dtype, copy=False).reshape(-1, *image_shape)
        taken = np.empty((len(indices), *image_shape), dtype)
        for part, start, stop in zip(images, starts[:-1], starts[1:], strict=True):
            chosen = np.flatnonzero((indices >= start) & (indices < stop))
            if len(chosen):
                taken[chosen] = part.take(indices[chosen] - start).reshape(-1, *image_shape)
        return taken

    read_bytes = _BYTES_A_READ_IN_BLOCKS if any(part.in_blocks for part in images) else _BYTES_A_READ
    return LabelledImages(
        class_names=class_names,
        labels=places,
        image_shape=image_shape,
        image_dtype=dtype,
        read=read,
        own_split={"test": np.arange(starts[1], starts[2], dtype=np.int64)} if len(images) > 1 else {},
        images_a_read=max(1, read_bytes // max(part.row_bytes for part in images)),
    )


def _where(array: StoredArray) -> str:
    return f"dataset.path: {array.where}"


def _whole(array: StoredArray) -> NDArray[Any]:
    if not array.shape:
        raise DatasetError("an array has no rows", where=_where(array), found="a single value")
    return array.rows(0, len(array))


def _parts(
    path: str | Path, arrays: Mapping[str, Callable[[], StoredArray]]
) -> tuple[list[StoredArray], list[StoredArray]]:
    """The arrays of images and those of labels; two of each where the test is set aside."""
    own, keras = any(key in arrays for key in _OWN_KEYS), any(key in arrays for key in _KERAS_KEYS)
    wanted = _KERAS_KEYS if keras and not own else _OWN_KEYS
    missing = [key for key in wanted if key not in arrays]
    if missing or (own and keras):
        raise DatasetError(
            f"arrays are missing: {', '.join(missing)}" if missing else "it is not clear which arrays to take",
            where=f"dataset.path: {path}",
            found=f"arrays: {', '.join(arrays) or 'none'}",
            expected=f"{' and '.join(_OWN_KEYS)}, or {', '.join(_KERAS_KEYS)}, in {EXPECTED_CONTAINER}",
        )
    return [arrays[key]() for key in wanted[::2]], [arrays[key]() for key in wanted[1::2]]


def _check_lengths(images: StoredArray, labels: StoredArray) -> None:
    if len(images) == 0:
        found = f"{images.dtype} array {images.shape}"
        raise DatasetError(
            "there are no images", where=_where(images), found=found, expected="shape (n, height, width)"
        )
    if len(images) != len(labels):
        raise DatasetError(
            "images and labels differ in number",
            where=f"{_where(images)} and {labels.where}",
            found=f"images {images.shape}, labels {labels.shape}",
            expected="one label an image",
        )


def _common_shape(images: list[StoredArray], samples: Samples) -> tuple[int, ...]:
    """The shape of each of all images, which are of one type."""
    shapes = {_image_shape(part, samples) for part in images}
    if len(shapes) > 1 or len({(part.dtype.kind, part.dtype == np.uint8) for part in images}) > 1:
        raise DatasetError(
            "the images to train with and those to test with differ",
            where=" and ".join(map(_where, images)),
            found=" and ".join(f"{part.dtype} {part.shape}" for part in images),
            expected="one type, height, width and number of channels",
        )
    return shapes.pop()


def _image_shape(images: StoredArray, samples: Samples) -> tuple[int, ...]:
    shape, found = images.shape[1:], f"{images.dtype} array {images.shape}"
    if images.dtype.kind not in "uif":
        raise DatasetError(
            "images are of another type",
            where=_where(images),
            found=found,
            expected="whole numbers or floats",
            hint="255 * images.astype('uint8')" if images.dtype.kind == "b" else None,
        )
    ranks = (2, 3) if samples == "images" else range(1, _MAX_RANK)
    if len(shape) not in ranks or 0 in shape:
        raise DatasetError(
            "images have another shape",
            where=_where(images),
            found=found,
            expected="shape (n, height, width) or (n, height, width, channels)"
            if samples == "images"
            else "samples of one axis or more",
            hint="where they are no images, such as time series or tables, set dataset.samples: arrays"
            if samples == "images" and 0 not in shape
            else None,
        )
    if samples == "arrays":
        return shape
    if len(shape) == 3 and shape[0] <= _CHANNELS < min(shape[1:]):
        told = (_where(images), *shape)
        _LOG.warning(
            "%s: images of height %d and width %d with %d channels: if the channels come first, give "
            "images.transpose(0, 2, 3, 1)",
            *told,
        )
    return (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)
