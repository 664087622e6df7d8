"""Every mode, depth, photometric interpretation and transparency that Pillow opens is read as a viewer shows it."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ensembleflow.datasets import read_image
from ensembleflow.errors import DatasetError
from support.image_bytes import ORDERS, bits_reversed, netpbm, packed, png, tiff

HEIGHT, WIDTH = 8, 32
# Pillow cuts deep colours to their upper byte, and its conversions are in whole numbers.
TOLERANCE = 3


def ramps(n_channels: int, largest: int):
    """Channels that rise from left to right, each displaced against the one before, (height, width, channels)."""
    values = np.linspace(0, largest, WIDTH).round().astype(np.uint64)
    return np.stack([np.tile(np.roll(values, 5 * i), (HEIGHT, 1)) for i in range(n_channels)], axis=-1)


def rising_downwards(largest: int):
    return np.tile(np.linspace(0, largest, HEIGHT).round().astype(np.uint64)[:, np.newaxis], (1, WIDTH))


def read(content: bytes):
    """The file as RGB; its grey must be the luma of that."""
    pixels = read_image(BytesIO(content), (HEIGHT, WIDTH, 3)).astype(float)
    grey = read_image(BytesIO(content), (HEIGHT, WIDTH, 1)).astype(float)
    np.testing.assert_allclose(grey[..., 0], pixels @ [0.299, 0.587, 0.114], atol=2)
    return pixels


def refusal(content: bytes) -> str:
    with pytest.raises(DatasetError, match="an image cannot be read") as caught:
        read_image(BytesIO(content), (HEIGHT, WIDTH, 3))
    return caught.value.found


def lab_to_rgb(lab):
    """CIE L*a*b* of daylight 50 to sRGB, from 0 to 1."""
    l_star, a_star, b_star = np.moveaxis(lab, -1, 0)
    f = np.stack([(l_star + 16) / 116 + a_star / 500, (l_star + 16) / 116, (l_star + 16) / 116 - b_star / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_linear = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    linear = np.clip(xyz @ np.transpose(to_linear), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# Photometric interpretation: how many channels have the colour.
N_COLOUR_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
ASSOCIATED_ALPHA, ALPHA, COREL_DRAWS_ALPHA = 1, 2, 999


class TiffCase:
    """A TIFF file of one of the keys of Pillow's table, and what it shows."""

    def __init__(self, key, planes: int, compression: int) -> None:
        self.byte_order, self.photometric, self.sample_format, self.fill_order, self.bits, self.extra = key
        self.planes, self.compression = planes, compression
        self.largest = 2 ** self.bits[0] - 1
        self.n_colours = min(N_COLOUR_CHANNELS[self.photometric], len(self.bits))
        self.samples = ramps(len(self.bits), self.largest)
        self.alpha = self.extra[0] if self.extra and self.extra[0] else None
        if not self.extra and len(self.bits) == 4 and self.photometric == 2:
            self.alpha = ALPHA
        if self.alpha:
            rising = rising_downwards(self.largest)
            self.samples[..., self.n_colours] = rising
            if self.alpha == ASSOCIATED_ALPHA:
                colours = self.samples[..., : self.n_colours]
                self.samples[..., : self.n_colours] = np.minimum(colours, rising[..., np.newaxis])
        if self.photometric == 8:
            self.samples[..., 1:] = self.samples[..., 1:] // 4 + 224 & 255  # a* and b* from -32 to 31, in eight bits
        self.palette = np.random.default_rng(0).integers(0, 256, (3, self.largest + 1 if self.photometric == 3 else 0))

    def content(self) -> bytes:
        parts = [self.samples] if self.planes == 1 else np.split(self.samples, len(self.bits), axis=-1)
        strips = [packed(part, self.bits[0], ORDERS[self.byte_order]) for part in parts]
        if self.fill_order == 2:
            strips = [bits_reversed(strip) for strip in strips]
        if self.compression == 8:
            strips = [zlib.compress(strip) for strip in strips]
        tags = {256: [WIDTH], 257: [HEIGHT], 258: self.bits, 259: [self.compression], 262: [self.photometric]}
        tags |= {266: [self.fill_order], 277: [len(self.bits)], 278: [HEIGHT], 284: [self.planes]}
        tags |= {339: self.sample_format * len(self.bits)}
        tags |= {338: self.extra} if self.extra else {}
        tags |= {320: (257 * self.palette).ravel().tolist()} if self.photometric == 3 else {}
        tags |= {530: [1, 1]} if self.photometric == 6 else {}
        return tiff(strips, self.byte_order, tags)

    def shown(self):
        values = self.samples / self.largest
        rgb = self.colours(values[..., : self.n_colours])
        if self.alpha:
            alpha = values[..., self.n_colours, np.newaxis]
            rgb = (rgb if self.alpha == ASSOCIATED_ALPHA else rgb * alpha) + 1 - alpha
        return 255 * rgb

    def colours(self, values):
        if self.photometric in (0, 1):
            return np.repeat(1 - values if self.photometric == 0 else values, 3, axis=-1)
        if self.photometric == 3:
            return self.palette.T[self.samples[..., 0].astype(int)] / 255
        if self.photometric == 5:
            return (1 - values[..., :3]) * (1 - values[..., 3:])
        if self.photometric == 6:
            luma, blue, red = np.moveaxis(values - [0, 128 / 255, 128 / 255], -1, 0)
            return np.clip(
                np.stack([luma + 1.402 * red, luma - 0.344 * blue - 0.714 * red, luma + 1.772 * blue], axis=-1), 0, 1
            )
        if self.photometric == 8:
            signed = self.samples[..., 1:].astype(np.uint8).view(np.int8)
            return lab_to_rgb(np.concatenate([100 * values[..., :1], signed], axis=-1))
        return values


KEYS = [*TiffImagePlugin.OPEN_INFO]
TIFFS = [
    (*key, planes, compression)
    for key in KEYS
    for planes in ((1, 2) if len(key[4]) > 1 else (1,))
    for compression in ((1, 8) if key[3] == 1 else (1,))  # packed bits in reverse order: nobody writes them
]


def is_refused(photometric, sample_format, bits, extra, planes) -> bool:
    """What has no full scale, or what neither Pillow nor libtiff reads rightly."""
    alpha = bool(extra and extra[0])
    if sample_format != (1,) or bits[0] == 32 or (photometric == 6 and len(bits) == 1):
        return True
    if planes == 2 and photometric == 2:
        return (len(bits) == 4 and not extra) or (alpha and len(extra) > 1)
    return planes == 2 and (alpha or photometric == 8)


@pytest.mark.parametrize("case", TIFFS, ids=lambda case: " ".join(map(str, case)))
def test_a_tiff_of_each_kind_that_pillow_knows_is_shown_rightly_or_refused(case):
    (*key, planes, compression) = case
    tiff_case = TiffCase(key, planes, compression)
    _, photometric, sample_format, _, bits, extra = key
    if is_refused(photometric, sample_format, bits, extra, planes):
        assert refusal(tiff_case.content())
        return
    tolerance = 8 if photometric == 8 else TOLERANCE
    np.testing.assert_allclose(read(tiff_case.content()), tiff_case.shown(), atol=tolerance)


def test_deep_grey_is_read_in_both_byte_orders_with_zero_black_or_white():
    kinds = {(key[0], key[1]) for key in KEYS if key[4] == (16,) and key[2] == (1,)}
    assert kinds == {(order, photometric) for order in ORDERS for photometric in (0, 1)}


def test_a_subsampled_tiff_is_shown_rightly():
    """Luma of 2×2 pixels, then their common colour: uncompressed, as scanners write it."""
    luma = ramps(1, 255)[..., 0].astype(np.uint8)
    blocks = luma.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).swapaxes(1, 2).reshape(-1, 4)
    units = np.concatenate([blocks, np.full((len(blocks), 2), 128, np.uint8)], axis=1)
    tags = {256: [WIDTH], 257: [HEIGHT], 258: [8, 8, 8], 259: [1], 262: [6], 277: [3], 278: [HEIGHT], 530: [2, 2]}
    shown = read(tiff([units.tobytes()], b"II", tags))
    np.testing.assert_allclose(shown, np.repeat(luma[..., np.newaxis], 3, axis=-1), atol=TOLERANCE)


GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
PNGS = [
    *((bits, GREY) for bits in (1, 2, 4, 8, 16)),
    *((bits, PALETTE) for bits in (1, 2, 4, 8)),
    *((bits, colour) for bits in (8, 16) for colour in (RGB, GREY_ALPHA, RGB_ALPHA)),
]


def png_case(bits: int, colour: int, transparent: bool):
    """A PNG file and what it shows."""
    largest = 2**bits - 1
    samples = ramps({GREY: 1, PALETTE: 1, GREY_ALPHA: 2, RGB: 3, RGB_ALPHA: 4}[colour], largest)
    before, opaque = [], np.ones((HEIGHT, WIDTH, 1))
    if colour in (GREY_ALPHA, RGB_ALPHA):
        samples[..., -1] = rising_downwards(largest)
        opaque, values = samples[..., -1:] / largest, samples[..., :-1] / largest
    else:
        values = samples / largest
    if colour == PALETTE:
        palette = np.random.default_rng(0).integers(0, 256, (largest + 1, 3))
        before.append((b"PLTE", palette.astype(np.uint8).tobytes()))
        values = palette[samples[..., 0].astype(int)] / 255
    if transparent and colour == PALETTE:
        alphas = np.linspace(0, 255, largest + 1).round().astype(np.uint8)
        before.append((b"tRNS", alphas.tobytes()))
        opaque = alphas[samples[..., 0].astype(int)][..., np.newaxis] / 255
    elif transparent:
        chosen = samples[3, WIDTH // 2]
        if bits == 16:
            samples[0] = chosen ^ np.uint64(1)  # differs in the last bit alone: opaque
            values = samples / largest
        before.append((b"tRNS", struct.pack(f">{len(chosen)}H", *chosen.tolist())))
        opaque = (samples != chosen).any(axis=-1, keepdims=True)
        assert 0 < opaque.sum() < opaque.size
    rgb = np.repeat(values, 3, axis=-1) if values.shape[-1] == 1 else values
    return png(samples, bits, colour, before), 255 * (rgb * opaque + 1 - opaque)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("bits", "colour"), PNGS)
def test_a_png_of_each_depth_and_colour_is_shown_rightly(bits, colour, transparent):
    if transparent and colour in (GREY_ALPHA, RGB_ALPHA):
        return  # has its alpha
    content, shown = png_case(bits, colour, transparent)
    np.testing.assert_allclose(read(content), shown, atol=TOLERANCE)


@pytest.mark.parametrize("colour", [GREY, RGB])
def test_a_png_of_which_only_the_lowest_bits_of_the_transparent_value_count(colour):
    samples = ramps(1 if colour == GREY else 3, 255)
    chosen = samples[0, 7].astype(int) + 256
    content = png(samples, 8, colour, [(b"tRNS", struct.pack(f">{len(chosen)}H", *chosen.tolist()))])
    assert (read(content)[:, 7] == 255).all()
    assert (read(content)[:, 8] != 255).any()


DEPTHS = [1, 2, 100, 254, 255, 256, 1000, 4095, 65_534, 65_535]


@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("largest", DEPTHS)
def test_a_netpbm_file_of_any_largest_value_is_shown_rightly(kind, largest):
    samples = ramps(3 if kind in (3, 6) else 1, largest)
    shown = np.broadcast_to(255 * samples / largest, (HEIGHT, WIDTH, 3))
    np.testing.assert_allclose(read(netpbm(samples, kind, largest)), shown, atol=1)


@pytest.mark.parametrize("kind", [1, 4])
def test_a_bitmaps_ones_are_black(kind):
    samples = ramps(1, 1)
    np.testing.assert_array_equal(read(netpbm(samples, kind, 1)), np.repeat(255 * (1.0 - samples), 3, axis=-1))


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    content = BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG2000", "IM", "PPM"])
def test_sixteen_bits_of_grey_keep_their_scale_in_each_format_that_has_them(file_format):
    values = (257 * ramps(1, 255)[..., 0]).astype(np.uint16)
    shown = np.repeat(values[..., np.newaxis] / 257, 3, axis=-1)
    np.testing.assert_allclose(read(saved(Image.fromarray(values), file_format)), shown, atol=TOLERANCE)


def fits(bits: int) -> bytes:
    cards = ["SIMPLE  =                    T", f"BITPIX  = {bits:20}", "NAXIS   =                    2"]
    cards += [f"NAXIS1  = {WIDTH:20}", f"NAXIS2  = {HEIGHT:20}", "END"]
    head = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    return (head + bytes(WIDTH * HEIGHT * abs(bits) // 8)).ljust(5760, b"\0")


@pytest.mark.parametrize(
    "content",
    [fits(16), fits(32), fits(-32), b"Pf\n32 8\n-1.0\n" + bytes(4 * WIDTH * HEIGHT)],
    ids=["signed 16 bits", "signed 32 bits", "floats", "portable floats"],
)
def test_values_of_unknown_full_scale_are_refused(content):
    assert "full scale is unknown" in refusal(content)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_any_depth_is_turned_as_its_camera_says(bits, orientation):
    """Each orientation of the EXIF standard, told by where the stored first row and column lie when shown."""
    stored = ramps(1, 2**bits - 1)
    stored[: HEIGHT // 2] //= 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    steps = [[], [np.fliplr], [np.fliplr, np.flipud], [np.flipud]]
    turned = [[np.transpose], [np.rot90] * 3, [np.rot90, np.rot90, np.transpose], [np.rot90]]
    shown = stored[..., 0] / (2**bits - 1) * 255
    for step in [*steps, *turned][orientation - 1]:
        shown = step(shown)
    content = png(stored, bits, GREY, [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))])
    np.testing.assert_allclose(read_image(BytesIO(content), (*shown.shape, 1))[..., 0], shown, atol=1)
    tags = {256: [WIDTH], 257: [HEIGHT], 258: [bits], 259: [1], 262: [1], 274: [orientation], 277: [1], 278: [HEIGHT]}
    content = tiff([packed(stored, bits, "<")], b"II", tags)
    np.testing.assert_allclose(read_image(BytesIO(content), (*shown.shape, 1))[..., 0], shown, atol=1)


def test_broken_notes_of_the_camera_hide_no_pixel():
    samples = ramps(3, 255)
    content = png(samples, 8, RGB, [(b"eXIf", b"neither one byte order nor the other")])
    np.testing.assert_array_equal(read(content), samples)
