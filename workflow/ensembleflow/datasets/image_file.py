"""One image file as pixels, in the same way for training and for prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ensembleflow.errors import DatasetError

__all__ = ["is_image_name", "read_image"]

_MODE_OF_CHANNELS = {1: "L", 3: "RGB"}


def is_image_name(name: str) -> bool:
    """Whether the file name ends like an image that Pillow reads."""
    return Path(name).suffix.lower() in Image.registered_extensions()


def read_image(path: str | Path, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read an image file, turn it as its camera says, and stretch it to a shape.

    16-bit grey values are scaled to 8 bits. Pillow's bound against decompression bombs stays on.

    Args:
        path: any file that Pillow reads.
        image_shape: (height, width, channels); 1 channel is grey, 3 are RGB.

    Returns:
        uint8 (height, width, channels).

    Raises:
        DatasetError: the file is missing, no image, truncated, or too large.
    """
    height, width, channels = image_shape
    mode = _MODE_OF_CHANNELS[channels]
    try:
        with Image.open(path) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened)).convert(mode)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:
        # A broken file leads Pillow's decoders to raise almost anything.
        raise DatasetError("an image cannot be read", where=path, found=_reason(error)) from error
    return np.asarray(image, dtype=np.uint8).reshape(image_shape)


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow would clip deep grey values at 255, which turns a 16-bit micrograph white.
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, of which the full scale is unknown; give 8 or 16 bits")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
