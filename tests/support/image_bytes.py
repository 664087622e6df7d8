"""Image files made by hand, byte by byte, in depths and kinds that no library writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = {b"II": "<", b"MM": ">"}


def packed(samples: NDArray[np.uint64], bits: int, order: str = ">") -> bytes:
    """Rows of samples (height, width, channels), each row filled up to whole bytes."""
    if bits in (8, 16, 32):
        return samples.astype(np.dtype(f"u{bits // 8}").newbyteorder(order)).tobytes()
    rows = samples.reshape(len(samples), -1, 1).astype(np.uint64)
    each_bit = rows >> np.arange(bits - 1, -1, -1, dtype=np.uint64) & np.uint64(1)
    return np.packbits(each_bit.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def bits_reversed(content: bytes) -> bytes:
    """Each byte's bits in reverse order: TIFF's second fill order."""
    return np.packbits(np.unpackbits(np.frombuffer(content, np.uint8)), bitorder="little").tobytes()


def tiff(strips: Sequence[bytes], byte_order: bytes, tags: Mapping[int, Sequence[int]]) -> bytes:
    """A TIFF of one page; `tags` are short integers, and lengths and places of the strips are added."""
    order = ORDERS[byte_order]
    kinds = {273: "I", 279: "I"}
    values = {**tags, 273: [0] * len(strips), 279: [len(strip) for strip in strips]}

    def encoded(tag: int) -> bytes:
        return struct.pack(f"{order}{len(values[tag])}{kinds.get(tag, 'H')}", *values[tag])

    long = {tag: len(encoded(tag)) for tag in sorted(values) if len(encoded(tag)) > 4}
    after_tags = 8 + 2 + 12 * len(values) + 4
    places = dict(zip(long, after_tags + np.cumsum([0, *long.values()]), strict=False))
    first_strip = after_tags + sum(long.values())
    values[273] = (first_strip + np.cumsum([0, *map(len, strips)])[:-1]).tolist()
    content = struct.pack(f"{order}2sHIH", byte_order, 42, 8, len(values))
    for tag in sorted(values):
        kind = 4 if tag in kinds else 3
        value = struct.pack(f"{order}I", places[tag]) if tag in places else encoded(tag).ljust(4, b"\0")
        content += struct.pack(f"{order}HHI", tag, kind, len(values[tag])) + value
    return content + bytes(4) + b"".join(map(encoded, long)) + b"".join(strips)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    samples: NDArray[np.uint64],
    bits: int,
    colour: int,
    before: Sequence[tuple[bytes, bytes]] = (),
    after: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG of samples (height, width, channels), with other chunks before and after the pixels."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row[np.newaxis], bits) for row in samples)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def netpbm(samples: NDArray[np.uint64], kind: int, largest: int) -> bytes:
    """A file of the kind P1 (text) to P6 (bytes), of samples (height, width, channels)."""
    height, width, _ = samples.shape
    head = f"P{kind}\n{width} {height}\n" + ("" if kind in (1, 4) else f"{largest}\n")
    if kind <= 3:
        return (head + " ".join(map(str, samples.ravel().tolist()))).encode()
    return head.encode() + packed(samples, 1 if kind == 4 else 8 if largest < 256 else 16)
