"""One image file as pixels, in the same way for training and for prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensembleflow import arguments
from ensembleflow.datasets.png_notes import is_png, without_hindering_notes
from ensembleflow.datasets.shown_pixels import shown_pixels
from ensembleflow.errors import DatasetError

__all__ = ["is_image_name", "read_image", "read_image_kind", "read_image_size"]

_T = TypeVar("_T")
_MODE_OF_CHANNELS = {1: "L", 3: "RGB"}
_KINDS = {"1": "grey", "L": "grey", "P": "palette", "F": "floating"}


def is_image_name(name: str) -> bool:
    """Whether the file name ends like an image that Pillow reads."""
    return name[name.rfind(".") :].lower() in _image_extensions()


@functools.cache  # asked for each of a million files
def _image_extensions() -> frozenset[str]:
    """Not what Pillow only writes, as PDF."""
    extensions = Image.registered_extensions()
    return frozenset(each for each, file_format in extensions.items() if file_format in Image.OPEN)


def read_image(
    path: str | Path | IO[bytes], image_shape: tuple[int, int, int], formats: tuple[str, ...] | None = None
) -> NDArray[np.uint8]:
    """Read an image file, turn it as its camera says, and stretch it to a shape.

    16-bit values are scaled to 8 bits. Transparent parts are laid over white, as a viewer shows them, for the colour
    stored under them is arbitrary. Of an animation or a file of several pages the first one is read. Pillow's bound
    against decompression bombs stays on.

    Args:
        path: any file that Pillow reads, or one that is open.
        image_shape: (height, width, channels) in pixels; 1 channel is grey, 3 are RGB, and files of others are refused.
        formats: Pillow's names of those to read; by default all.

    Returns:
        uint8 (height, width, channels).

    Raises:
        DatasetError: the file is missing, no image, truncated, or too large.
    """
    image_shape = arguments.image_shape("image_shape", image_shape)
    if not hasattr(path, "read"):
        path = arguments.file_path("path", path)
    try:
        if image_shape[2] not in _MODE_OF_CHANNELS:
            raise ValueError(f"image files have 1 or 3 channels, not {image_shape[2]}; give a NumPy array instead")
        return _retried(lambda file: _pixels(file, image_shape, formats), path)
    except Exception as error:
        # A broken file leads Pillow's decoders to raise almost anything.
        where = path if isinstance(path, str | Path) else None
        raise DatasetError("an image cannot be read", where=where, found=_reason(error)) from error


def read_image_size(path: str | Path | IO[bytes], formats: tuple[str, ...] | None = None) -> tuple[int, int]:
    """Width and height in pixels as the file tells them, of the images that `read_image` reads.

    Raises:
        Exception: whatever Pillow raises at a file that is no image.
    """

    def size(file: str | Path | IO[bytes]) -> tuple[int, int]:
        with Image.open(file, formats=formats) as opened:
            return opened.size

    return _retried(size, path)


def read_image_kind(path: str | Path) -> tuple[int, int, str]:
    """Width and height in pixels and kind of image as the file tells them, without decoding it.

    Returns:
        The kind is `grey`, `RGB`, `palette`, `16 bits` (or more a channel), `with transparency`, `floating`, or what
        Pillow calls its mode.

    Raises:
        Exception: whatever Pillow raises at a file that is no image.
    """

    def kind(file: str | Path | IO[bytes]) -> tuple[int, int, str]:
        with Image.open(file) as opened:
            raw_mode = str(opened.tile[0][3]) if opened.tile else ""
            if opened.mode.startswith("I") or ";16" in raw_mode:
                told = "16 bits"
            elif opened.mode.lower() in ("la", "pa", "rgba") or "transparency" in opened.info:
                told = "with transparency"
            else:
                told = _KINDS.get(opened.mode, opened.mode)
            return *opened.size, told

    return _retried(kind, path)


def _retried(read: Callable[[str | Path | IO[bytes]], _T], path: str | Path | IO[bytes]) -> _T:
    """Read once more without what Pillow refuses the pixels for, though it stands beside them."""
    try:
        return read(path)
    except Exception:
        slimmed = without_hindering_notes(_content(path))
        if slimmed is None:
            raise
        return read(slimmed)


def _pixels(
    path: str | Path | IO[bytes], image_shape: tuple[int, int, int], formats: tuple[str, ...] | None
) -> NDArray[np.uint8]:
    height, width, channels = image_shape
    with Image.open(path, formats=formats) as opened:
        image = shown_pixels(opened).convert(_MODE_OF_CHANNELS[channels])
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(image_shape)


def _content(path: str | Path | IO[bytes]) -> bytes:
    """The whole of a file that is a PNG; nothing of any other."""
    with open(path, "rb") if isinstance(path, str | Path) else nullcontext(path) as file:
        file.seek(0)
        head = file.read(8)
        return head + file.read() if is_png(head) else b""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
