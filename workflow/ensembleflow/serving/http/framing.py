"""What a request's head may say of where the request ends, beyond what the parser itself refuses.

Source: RFC 9112, sections 2.3 (version), 3.2 (Host) and 6 (body); RFC 9110, section 7.8 (Upgrade).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["HeadFault", "head_fault", "head_without_offer", "waits_to_send"]

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")

_Headers = Sequence[tuple[bytes, bytes]]


class HeadFault(NamedTuple):
    """Why a request is not read any further; the connection ends with it."""

    status: int
    message: str


def head_fault(method: bytes, version: str, headers: _Headers) -> HeadFault | None:
    """What is wrong with a head that the parser took; None if nothing is.

    Args:
        method: as it was sent.
        version: of HTTP, such as `1.1`.
        headers: names in lower case, values without white space around them.
    """
    if version not in ("1.1", "1.0"):
        return HeadFault(505, f"another version of HTTP (found: {version}; expected: 1.1)")
    if method == b"CONNECT":
        return HeadFault(501, "this is no proxy (found: CONNECT)")
    names = [name for name, _ in headers]
    n_hosts = names.count(b"host")
    if n_hosts > 1 or (not n_hosts and version == "1.1"):
        return HeadFault(400, f"a request has to name one Host (found: {n_hosts})")
    if n_hosts and not _HOST.fullmatch(headers[names.index(b"host")][1]):
        return HeadFault(400, "a request's Host is not one (expected: NAME or NAME:PORT)")
    if b"transfer-encoding" in names:
        if version == "1.0":
            return HeadFault(400, "HTTP/1.0 has no Transfer-Encoding")
        if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
            return HeadFault(501, "a body's Transfer-Encoding is not understood (expected: chunked)")
    return None


def waits_to_send(version: str, headers: _Headers) -> bool:
    """Whether a client sends a request's body only once it is asked to."""
    expected = [value.lower() for name, value in headers if name == b"expect"]
    return version == "1.1" and b"100-continue" in expected


def head_without_offer(method: bytes, url: bytes, version: str, headers: _Headers) -> bytes:
    """A request's head as it was sent, but that it does not offer to go on in another protocol.

    Args:
        method: as it was sent.
        url: the request's target, as it was sent.
        version: of HTTP.
        headers: names in lower case, values as the parser took them.
    """
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
