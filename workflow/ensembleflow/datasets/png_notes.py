"""A PNG file without what stands beside its pixels and hinders reading them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

__all__ = ["is_png", "without_hindering_notes"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE = b"iCCP"  # colours are not converted
_NOTE_BYTES, _ALL_NOTES_BYTES = 2**18, 2**22


def is_png(head: bytes) -> bool:
    """Whether a file that begins like this is a PNG."""
    return head.startswith(_SIGNATURE)


def without_hindering_notes(content: bytes) -> BytesIO | None:
    """The same PNG without large texts, colour profiles and optional chunks of another checksum; None if it has none.

    Pillow refuses such files whole, so that a compressed text cannot fill the memory. A viewer passes over them. Here
    they are never unpacked beyond 256 kB each and 4 MB together.

    Args:
        content: the file. Where it is cut, the rest stays as it is.
    """
    if not is_png(content):
        return None
    kept, room = [_SIGNATURE], _ALL_NOTES_BYTES
    for chunk in _chunks(content):
        kind, data = chunk[4:8], chunk[8:-4]
        if kind[:1].islower():  # optional, PNG specification 5.4
            size = _text_size(kind, data) if kind in _TEXTS else 0
            hinders = kind == _PROFILE or size > min(_NOTE_BYTES, room)
            if hinders or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                continue
            room -= size
        kept.append(chunk)
    slimmed = b"".join(kept)
    return BytesIO(slimmed) if len(slimmed) < len(content) else None


def _chunks(content: bytes) -> Iterator[bytes]:
    """Length, kind, data and checksum of each chunk together; the last may be cut."""
    start = len(_SIGNATURE)
    while start < len(content):
        stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
        yield content[start:stop]
        start = stop


def _text_size(kind: bytes, data: bytes) -> int:
    """Bytes of a text, unpacked; at most one more than are kept; those of more where it cannot be unpacked."""
    text = data.partition(b"\0")[2]
    packed = kind == b"zTXt"
    if packed:
        method, text = text[:1], text[1:]
    elif kind == b"iTXt":
        packed, method = text[:1] != b"\0", text[1:2]
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    if not packed:
        return len(text)
    if method == b"\0":
        with suppress(zlib.error):
            return len(zlib.decompressobj().decompress(text, _NOTE_BYTES + 1))
    return _NOTE_BYTES + 1
