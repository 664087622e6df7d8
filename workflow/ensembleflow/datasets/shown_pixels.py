"""An opened image's pixels as a viewer shows them: upright, opaque, 8 bits deep.

Pillow leaves four things to its callers: the full scale of deep grey values, whether zero is white in them, which deep
value is transparent, and alpha itself. Where it would read a file wrongly without a word, the file is refused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, features

__all__ = ["shown_pixels"]

_PHOTOMETRIC, _BITS, _PLANES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 262, 258, 284, 338, 339
_UNSIGNED = 1
_WHITE_IS_ZERO = 0
# Formats in which 16 bits of grey are unsigned and reach to 65,535; Pillow has scaled other depths to that.
_FULL_SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000", "IM", "ICO", "ICNS")
# A PNG's transparent grey is told in the file's own depth, while Pillow gives the pixels 8 bits.
_GREY_STEPS = {"L;2": 85, "L;4": 17}

if features.check("libtiff"):
    # Pillow's own decoder garbles uncompressed planes of 16 bits and subsampled colours; libtiff reads them rightly.
    TiffImagePlugin.READ_LIBTIFF = True
# Deep grey in which zero is white, in the other byte order: ImageJ writes it.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


def shown_pixels(opened: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened image file.

    16-bit grey is scaled to 8 bits, white-is-zero turned round, alpha and transparent colours laid over white, and the
    image turned as its camera says.

    Returns:
        An image of a mode that converts to L and RGB without loss: L, RGB, CMYK, P and the like.

    Raises:
        ValueError: the full scale of the values is unknown, or Pillow would read them wrongly.
        Exception: whatever Pillow's decoders raise at a broken file.
    """
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        _check_tiff(opened)
    if opened.format == "PNG" and "transparency" in opened.info and opened.mode in ("L", "RGB"):
        image = _with_transparent_colour(opened)
    else:
        opened.load()  # an icon's mode is known only now
        if opened.mode.startswith("I") or opened.mode == "F":
            image = _eight_bit_grey(opened)
        else:
            image = opened.convert("LA") if opened.mode == "La" else opened
    return _opaque(_upright(image))


def _check_tiff(opened: TiffImagePlugin.TiffImageFile) -> None:
    tags = opened.tag_v2
    if set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
        raise ValueError("signed or floating values, of which the full scale is unknown; give unsigned 8 or 16 bits")
    garbled = opened.mode in ("LA", "La", "PA", "LAB") or (opened.mode == "RGBA" and _EXTRA_SAMPLES not in tags)
    if tags.get(_PLANES, 1) == 2 and garbled:
        raise ValueError(f"pixels of mode {opened.mode} in separate planes; save them with interleaved channels")


def _eight_bit_grey(opened: ImageFile.ImageFile) -> Image.Image:
    """Pillow would clip deep grey values at 255, which turns a 16-bit micrograph white."""
    full_scale, white_is_zero = _full_scale(opened), False
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        white_is_zero = opened.tag_v2.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    transparent = opened.info.get("transparency")
    values = np.asarray(opened)
    shades = np.rint(np.arange(full_scale + 1) / (full_scale / 255)).astype(np.uint8)
    image = Image.fromarray((shades[::-1] if white_is_zero else shades)[values])
    return _like(opened, image, None if transparent is None else values == transparent)


def _full_scale(opened: ImageFile.ImageFile) -> int:
    """The value of white, or of black where zero is white."""
    if opened.mode != "F":
        if isinstance(opened, TiffImagePlugin.TiffImageFile) and opened.mode != "I":
            return 2 ** int(opened.tag_v2[_BITS][0]) - 1
        if opened.format in _FULL_SIXTEEN_BITS and (opened.mode != "I" or opened.format == "PPM"):
            return 65_535
    raise ValueError(
        f"{opened.format} pixels of mode {opened.mode}, of which the full scale is unknown; give 8 or 16 bits"
    )


def _with_transparent_colour(opened: ImageFile.ImageFile) -> Image.Image:
    """A PNG of which one grey or colour is transparent."""
    raw_mode, colour = str(opened.tile[0][3]), opened.info["transparency"]
    if opened.mode == "L":
        step = _GREY_STEPS.get(raw_mode, 1)
        opened.info["transparency"] = colour * step & 255
    elif raw_mode.startswith("RGB;16"):
        # Pillow keeps the upper byte of each value; the whole value must be equal.
        lower = _decoded_as(opened, raw_mode, "RGB;16L" if raw_mode == "RGB;16B" else "RGB;16B")
        opened.load()
        equal = np.asarray(opened) == np.array(colour) >> 8
        equal &= lower == np.array(colour) & 255
        return _like(opened, opened.copy(), equal.all(axis=-1))
    else:
        opened.info["transparency"] = tuple(value & 255 for value in colour)
    opened.load()
    return opened


def _decoded_as(opened: ImageFile.ImageFile, raw_mode: str, other_raw_mode: str) -> NDArray[np.uint8]:
    """The file's pixels read once more, in another raw mode of as many bits; `opened` stands where it stood."""
    assert opened.fp is not None
    position = opened.fp.tell()
    with Image.open(opened.fp, formats=["PNG"]) as again:
        tile = again.tile[0]
        assert tile[3] == raw_mode
        again.tile = [tile._replace(args=other_raw_mode)]
        pixels = np.array(again)
    opened.fp.seek(position)
    return pixels


def _like(opened: Image.Image, image: Image.Image, transparent: NDArray[np.bool_] | None) -> Image.Image:
    """An image with what `opened` tells beside its pixels, but the transparent colour as alpha."""
    image.info = {key: value for key, value in opened.info.items() if key != "transparency"}
    if transparent is not None:
        image.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # What stands beside the pixels is broken; they are shown as they lie.
        return image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return image.convert("RGB")
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)
