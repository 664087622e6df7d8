"""What stands beside a PNG's pixels never hinders reading them, however large or broken, nor fills the memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensembleflow.datasets import read_image, read_image_size
from ensembleflow.datasets.png_notes import without_hindering_notes
from ensembleflow.errors import DatasetError
from support.image_bytes import chunk, png

MEGABYTE = 2**20
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint64)
RGB, PALETTE = 2, 3


def read(content: bytes, shape=(6, 9, 3)):
    return read_image(BytesIO(content), shape)


def text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    head = {
        b"tEXt": b"Comment\0",
        b"zTXt": b"Comment\0\0",
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0",
        b"iCCP": b"profile\0\0",
    }[kind]
    return kind, head + (content if kind == b"tEXt" else zlib.compress(content))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("n_bytes", [2 * MEGABYTE, 20 * MEGABYTE])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_or_profile_of_any_size_hinders_no_pixel(kind, n_bytes, place):
    content = png(PIXELS, 8, RGB, **{place: [text(kind, b"<x>" * (n_bytes // 3))]})
    np.testing.assert_array_equal(read(content), PIXELS)


@pytest.mark.parametrize("n_bytes", [MEGABYTE // 5, MEGABYTE - 1])
def test_many_texts_hinder_no_pixel(n_bytes):
    content = png(PIXELS, 8, RGB, before=[text(b"zTXt", b"a" * n_bytes)] * 400)
    np.testing.assert_array_equal(read(content), PIXELS)


def test_texts_are_never_unpacked_whole():
    content = png(PIXELS, 8, RGB, before=[text(b"zTXt", bytes(50 * MEGABYTE)), text(b"iCCP", bytes(50 * MEGABYTE))])
    tracemalloc.start()
    read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MEGABYTE


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize(
    "data", [b"", b"key", b"key\0", b"key\0\0", b"key\0\7abc", b"key\0\1\7\0\0abc", b"key\0\0\x78\x9cno"]
)
def test_a_malformed_text_hinders_no_pixel(kind, data):
    np.testing.assert_array_equal(read(png(PIXELS, 8, RGB, before=[(kind, data)])), PIXELS)


@pytest.mark.parametrize("kind", [b"tEXt", b"tIME", b"pHYs", b"gAMA"])
def test_an_optional_chunk_of_another_checksum_hinders_no_pixel(kind):
    data = b"Comment\0a" if kind == b"tEXt" else bytes(9)
    content = png(PIXELS, 8, RGB, before=[(kind, data)])
    assert content.count(chunk(kind, data)) == 1
    content = content.replace(chunk(kind, data), chunk(kind, data)[:-1] + b"?")
    np.testing.assert_array_equal(read(content), PIXELS)


def test_what_the_pixels_need_stays():
    """The palette, its transparent colours, and how the camera was held."""
    indices = np.arange(54, dtype=np.uint64).reshape(6, 9, 1)
    palette = np.random.default_rng(1).integers(0, 256, (54, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", b"\0"), (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    shown = palette[indices[::-1, ::-1, 0].astype(int)]
    shown[-1, -1] = 255
    for notes in ([], [text(b"zTXt", b"a" * 2 * MEGABYTE)]):
        np.testing.assert_array_equal(read(png(indices, 8, PALETTE, [*chunks, *notes])), shown)


@pytest.mark.parametrize("size", [10, 2 * MEGABYTE])
def test_the_camera_may_say_in_a_small_text_how_it_was_held(size):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    content = png(PIXELS, 8, RGB, before=[text(b"iTXt", xmp), text(b"zTXt", b"a" * size)])
    np.testing.assert_array_equal(read(content), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_cut_file_is_refused_with_a_large_text_too(kept):
    whole = png(PIXELS, 8, RGB)
    cut = whole[: 33 + int(kept * (len(whole) - 45 - 33))]
    content = cut[:33] + chunk(*text(b"zTXt", b"a" * 2 * MEGABYTE)) + cut[33:]
    with pytest.raises(DatasetError, match="cannot be read"):
        read(content)


def test_a_large_file_beside_the_text_is_read_from_a_path_too(tmp_path):
    (tmp_path / "a.png").write_bytes(png(PIXELS, 8, RGB, before=[text(b"iCCP", bytes(2 * MEGABYTE))]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (6, 9, 3)), PIXELS)
    assert read_image_size(tmp_path / "a.png") == (9, 6)


@given(st.binary(max_size=300))
def test_nothing_but_an_answer_comes_of_any_bytes(rest):
    slimmed = without_hindering_notes(b"\x89PNG\r\n\x1a\n" + rest)
    assert slimmed is None or len(slimmed.getvalue()) < 8 + len(rest)
    assert without_hindering_notes(rest) is None or rest.startswith(b"\x89PNG")


def test_a_length_that_reaches_beyond_the_file_is_the_files_end():
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IDATabc"
    assert without_hindering_notes(content) is None
