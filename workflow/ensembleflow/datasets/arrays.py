"""Images and labels as NumPy or HDF5 arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.array_store import EXPECTED_CONTAINER, StoredArray, open_arrays
from ensembleflow.datasets.class_labels import classes_of_labels
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import DatasetError

__all__ = ["labelled_arrays", "read_arrays"]

_OWN_KEYS = ("images", "labels")
_KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
_FULL_SCALE = 255
# Where a single image costs a whole block, the fewer reads the better.
_BYTES_A_READ, _BYTES_A_READ_IN_BLOCKS = 2**26, 2**28


def read_arrays(path: str | Path) -> LabelledImages:
    """Open labelled images in an `.npz` file, an HDF5 file, or a folder of `.npy` files.

    The arrays are `images` and `labels`, or `x_train`, `y_train`, `x_test`, `y_test`, as Keras's datasets have them, of
    which the last two are set aside for the test; and, if there is one, `class_names`. Images have shape
    (n, height, width), (n, height, width, 1) or (n, height, width, 3), and are uint8, or floats from 0 to 1, which are
    rounded to 255ths. Labels: see `classes_of_labels`.

    Raises:
        DatasetError: an array is missing, damaged, of another shape or type, or has values out of range.
    """
    openers = open_arrays(path)
    images, labels = _parts(path, openers)
    return labelled_arrays(images, labels, openers["class_names"]() if "class_names" in openers else None)


def labelled_arrays(images: list[StoredArray], labels: list[StoredArray], names: StoredArray | None) -> LabelledImages:
    """Arrays of images and of labels as one source; of two each, the second is set aside for the test.

    Args:
        images: arrays as `read_arrays` describes them.
        labels: one for each array of images; see `classes_of_labels`.
        names: class names, or None.

    Raises:
        DatasetError: arrays do not belong together, are of another shape or type, or have values out of range.
    """
    for part_images, part_labels in zip(images, labels, strict=True):
        _check_lengths(part_images, part_labels)
    image_shape = _common_shape(images)
    places, class_names = classes_of_labels(
        [(_where(part), _whole(part)) for part in labels], None if names is None else (_where(names), _whole(names))
    )
    for part in images:
        if part.dtype.kind == "f":
            _check_range(part)
    starts = np.cumsum([0, *map(len, images)])

    def read(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(images) == 1:
            return _as_uint8(images[0].take(indices)).reshape(-1, *image_shape)
        taken = np.empty((len(indices), *image_shape), np.uint8)
        for part, start, stop in zip(images, starts[:-1], starts[1:], strict=True):
            chosen = np.flatnonzero((indices >= start) & (indices < stop))
            if len(chosen):
                rows = part.take(indices[chosen] - start)
                taken[chosen] = _as_uint8(rows).reshape(-1, *image_shape)
        return taken

    read_bytes = _BYTES_A_READ_IN_BLOCKS if any(part.in_blocks for part in images) else _BYTES_A_READ
    return LabelledImages(
        class_names=class_names,
        labels=places,
        image_shape=image_shape,
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


def _common_shape(images: list[StoredArray]) -> tuple[int, int, int]:
    """(height, width, channels) of all images, which are of one type."""
    shapes = {_image_shape(part) for part in images}
    if len(shapes) > 1 or len({part.dtype.kind for part in images}) > 1:
        raise DatasetError(
            "the images to train with and those to test with differ",
            where=" and ".join(map(_where, images)),
            found=" and ".join(f"{part.dtype} {part.shape}" for part in images),
            expected="one type, height, width and number of channels",
        )
    return shapes.pop()


def _image_shape(images: StoredArray) -> tuple[int, int, int]:
    shape, found = images.shape[1:], f"{images.dtype} array {images.shape}"
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DatasetError(
            "images are of another type",
            where=_where(images),
            found=found,
            expected="uint8, or floats from 0 to 1",
            hint=_type_hint(images.dtype),
        )
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3) or 0 in shape:
        raise DatasetError(
            "images have another shape",
            where=_where(images),
            found=found,
            expected="shape (n, height, width), (n, height, width, 1) or (n, height, width, 3)",
            hint=_shape_hint(shape),
        )
    return shape[0], shape[1], channels


def _type_hint(dtype: np.dtype[Any]) -> str | None:
    if dtype == np.uint16:
        return "if the full scale is 65535: (images // 257).astype('uint8')"
    if dtype.kind == "b":
        return "255 * images.astype('uint8')"
    return "if the values are 0 to 255: images.astype('uint8')" if dtype.kind in "iu" else None


def _shape_hint(shape: tuple[int, ...]) -> str | None:
    if len(shape) != 3:
        return None
    if shape[0] in (1, 3):
        return "if the channels come first: images.transpose(0, 2, 3, 1)"
    return "of RGBA keep three: images[..., :3]" if shape[2] == 4 else "choose one channel or three: images[..., :3]"


def _check_range(images: StoredArray) -> None:
    """Read floats once through, block by block: they must be numbers from 0 to 1."""
    lowest, highest = np.inf, -np.inf
    for number, block in enumerate(images.blocks()):
        bad = ~np.isfinite(block)
        if bad.any():
            first = number * images.block_rows + int(np.flatnonzero(bad.reshape(len(block), -1).any(axis=1))[0])
            raise DatasetError(
                "images hold values that are no numbers",
                where=_where(images),
                found=f"NaN or infinity, first in image {first}",
                expected="numbers from 0 to 1",
                hint="numpy.nan_to_num(images), or leave these images out",
            )
        lowest, highest = min(lowest, float(block.min())), max(highest, float(block.max()))
    if lowest < 0 or highest > 1:
        if lowest >= 0 and highest <= _FULL_SCALE:
            hint = "if the full scale is 255: images.round().astype('uint8')"
        else:
            hint = "scale them: (images - images.min()) / (images.max() - images.min())"
        raise DatasetError(
            "images have values out of range",
            where=_where(images),
            found=f"{images.dtype} from {lowest:g} to {highest:g}",
            expected="floats from 0 to 1, or uint8",
            hint=hint,
        )


def _as_uint8(rows: NDArray[Any]) -> NDArray[np.uint8]:
    if rows.dtype == np.uint8:
        return rows
    return np.rint(rows.astype(np.float32) * _FULL_SCALE).astype(np.uint8)
