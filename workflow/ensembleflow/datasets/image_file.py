"""One image file as pixels, in the same way for training and for prediction."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ensembleflow.errors import DatasetError

__all__ = ["is_image_name", "read_image"]

_MODE_OF_CHANNELS = {1: "L", 3: "RGB"}


def is_image_name(name: str) -> bool:
    """Whether the file name ends like an image that Pillow reads."""
    return Image.registered_extensions().get(Path(name).suffix.lower()) in Image.OPEN  # not what it only writes, as PDF


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
    height, width, channels = image_shape
    try:
        if channels not in _MODE_OF_CHANNELS:
            raise ValueError(f"image files have 1 or 3 channels, not {channels}; give a NumPy array instead")
        with Image.open(path, formats=formats) as opened:
            image = _opaque(_eight_bits(ImageOps.exif_transpose(opened))).convert(_MODE_OF_CHANNELS[channels])
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:
        # A broken file leads Pillow's decoders to raise almost anything.
        where = path if isinstance(path, str | Path) else None
        raise DatasetError("an image cannot be read", where=where, found=_reason(error)) from error
    return np.asarray(image, dtype=np.uint8).reshape(image_shape)


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow would clip deep grey values at 255, which turns a 16-bit micrograph white.
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, of which the full scale is unknown; give 8 or 16 bits")
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
