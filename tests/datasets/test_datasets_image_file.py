"""An image file of any mode becomes pixels of one shape, in the same way each time, or is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ensembleflow.datasets import read_image
from ensembleflow.datasets.image_file import is_image_name
from ensembleflow.errors import DatasetError

SHAPE = (4, 4, 3)


def saved(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def test_sixteen_bit_grey_keeps_its_scale(tmp_path):
    Image.fromarray(np.array([[0, 32_896], [65_535, 257]], np.uint16)).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png", (2, 2, 1))
    assert image[..., 0].tolist() == [[0, 128], [255, 1]]


def test_pixels_of_unknown_scale_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_image(tmp_path / "float.tif", (4, 4, 3))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_any_mode_becomes_the_asked_shape(tmp_path, mode, channels):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path, (6, 4, channels))
    assert (image.shape, image.dtype) == ((6, 4, channels), np.uint8)
    assert image.min() >= 250


def test_image_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png", (8, 4, 1))[..., 0]
    assert turned[0].max() == 0
    assert turned[-1].min() == 255


RED, BLUE = (200, 10, 20), (0, 0, 250)
HALF = np.array([[0, 255]] * 2, np.uint8).repeat(2, axis=0).repeat(2, axis=1)  # the left half transparent


def test_transparent_parts_are_laid_over_white(tmp_path):
    image = Image.new("RGB", (4, 4), RED)
    image.putalpha(Image.fromarray(HALF))
    pixels = read_image(saved(tmp_path / "rgba.png", image), SHAPE)
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, 3] == RED).all()
    grey = Image.new("L", (4, 4), 40)
    grey.putalpha(Image.fromarray(HALF))
    pixels = read_image(saved(tmp_path / "la.png", grey), (4, 4, 1))
    assert pixels[0, 0] == 255
    assert pixels[0, 3] == 40
    image.putalpha(128)
    pixels = read_image(saved(tmp_path / "half.png", image), SHAPE)
    np.testing.assert_allclose(pixels[0, 0], (np.array(RED) + 255) / 2, atol=1)


def test_a_palettes_transparent_colour_is_laid_over_white(tmp_path):
    image = Image.fromarray(HALF // 255)
    image.putpalette([*RED, *BLUE])
    for suffix in ("png", "gif"):
        plain = read_image(saved(tmp_path / f"plain.{suffix}", image), SHAPE)
        assert (plain[0, 0] == RED).all()
        pixels = read_image(saved(tmp_path / f"transparent.{suffix}", image, transparency=0), SHAPE)
        assert (pixels[0, 0] == 255).all()
        assert (pixels[0, 3] == BLUE).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_or_several_pages_the_first_is_read(tmp_path, suffix):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE))
    path = saved(tmp_path / f"moving.{suffix}", first, save_all=True, append_images=[second])
    with Image.open(path) as opened:
        assert opened.n_frames == 2
    np.testing.assert_allclose(read_image(path, SHAPE)[0, 0], RED, atol=6)


def test_cmyk_becomes_its_colour(tmp_path):
    colour = Image.new("RGB", (4, 4), RED).convert("CMYK")
    for suffix in ("jpg", "tif"):
        np.testing.assert_allclose(read_image(saved(tmp_path / f"c.{suffix}", colour), SHAPE)[0, 0], RED, atol=6)


def test_sixteen_bits_of_either_byte_order_keep_their_scale(tmp_path):
    deep = np.array([[0, 32_896], [65_535, 257]], np.uint16)
    big = Image.frombytes("I;16B", (2, 2), deep.astype(">u2").tobytes())
    for path in (saved(tmp_path / "little.tif", deep), saved(tmp_path / "big.tif", big)):
        assert read_image(path, (2, 2, 1))[..., 0].tolist() == [[0, 128], [255, 1]]


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits=8, colour=0, content=b""):
    """A PNG file by hand, for what Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def test_sixteen_bits_a_channel_become_eight(tmp_path):
    row = b"\0" + struct.pack(">3H", *(257 * value for value in RED)) * 4
    (tmp_path / "deep.png").write_bytes(png(4, 4, bits=16, colour=2, content=row * 4))
    assert (read_image(tmp_path / "deep.png", SHAPE) == RED).all()


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow's bound is on"
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        read_image(tmp_path / "bomb.png", SHAPE)
    assert "exceeds limit" in caught.value.found


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"cut.{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        read_image(path, SHAPE)
    assert caught.value.found
    assert str(path) in caught.value.where


def test_a_number_of_channels_that_no_image_file_has_is_refused(tmp_path):
    path = saved(tmp_path / "rgb.png", Image.new("RGB", (4, 4)))
    with pytest.raises(DatasetError) as caught:
        read_image(path, (4, 4, 4))
    assert "1 or 3 channels" in caught.value.found


def test_names_of_images_are_those_that_can_be_opened():
    assert all(map(is_image_name, ["a.png", "b.JPG", "c.d.tiff", "e.webp"]))
    assert not any(map(is_image_name, ["a.txt", "png", "b.pdf", "c.png.txt"]))
