"""What every request passes before and after its route: token, limits, request id, metrics and log."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ensembleflow.serving.http.connection import BODY_IS_READ, CLIENT_WAITS
from ensembleflow.serving.metrics import Metrics
from ensembleflow.serving.signature import Signature

__all__ = ["Admission", "RequestLimits", "needed_body_bytes", "note_images"]

_LOG = logging.getLogger("ensembleflow.serving")

_OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
_PROBES = frozenset({"/metrics", "/v2/health/live", "/v2/health/ready"})
_SLOWEST_BYTES_PER_SECOND = 50_000
_MAX_BUFFERED_BYTES = 512 * 2**20
_MAX_IMAGE_FILE_BYTES = 32 * 2**20
# `255.0, ` and INT64 fit, and `-1.2345678901234567e-100, `.
_BYTES_A_VALUE, _BYTES_BESIDE_TENSORS = {"uint8": 8, "float32": 26}, 2**20
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MAX_LOGGED_CHARACTERS = 200
_CLIENT_GONE = 499
_IMAGES = "ensembleflow.images"


@dataclass(frozen=True)
class RequestLimits:
    """What a request may take.

    Attributes:
        max_body_bytes: of one request.
        read_timeout_seconds: a body may take so long, and a second more for each 50,000 bytes.
        token: what clients must send as bearer token; None if anybody may ask.
    """

    max_body_bytes: int
    read_timeout_seconds: float = 10.0
    token: str | None = field(default=None, repr=False)

    @property
    def max_buffered_bytes(self) -> int:
        """Of the bodies of all requests at work; more are answered 503."""
        return max(_MAX_BUFFERED_BYTES, 2 * self.max_body_bytes)


def needed_body_bytes(signature: Signature) -> int:
    """What the longest request of a model needs, as JSON, and any image file."""
    n_values = signature.max_images * math.prod(signature.image_shape)
    return max(_MAX_IMAGE_FILE_BYTES, n_values * _BYTES_A_VALUE[signature.image_dtype] + _BYTES_BESIDE_TENSORS)


def note_images(scope: Scope, n_images: int) -> None:
    """Record how many images a request was answered for."""
    scope[_IMAGES] = n_images


class _RefusalError(Exception):
    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {} if headers is None else headers


@dataclass
class _Reservation:
    """What a request's body takes of all bodies' memory."""

    n_bytes: int = 0


class Admission:
    """An ASGI application around another one; routes behind it find the whole body read.

    Args:
        app: what answers the requests that pass.
        limits: of a request.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._token = None if limits.token is None else limits.token.encode()
        self._n_buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started_at = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = os.urandom(16).hex()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope.get(CLIENT_WAITS):  # who is answered instead may send the body, or the next request
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        self._metrics.in_flight.inc()
        error: Exception | None = None
        try:
            await self._pass(scope, headers, receive, send_named)
        except _RefusalError as refusal:
            await _refuse(send_named, refusal)
        except asyncio.CancelledError:  # the time to stop is over
            if not status:
                await _refuse(send_named, _RefusalError(503, "the server stops", {"connection": "close"}))
        except Exception as caught:
            error = caught
            if not status:
                await _refuse(send_named, _RefusalError(500, "unexpected failure: the server's log tells more"))
        finally:
            self._metrics.in_flight.dec()
        seconds = time.perf_counter() - started_at
        route = getattr(scope.get("route"), "path", "other")
        n_images = scope.get(_IMAGES, 0)
        self._metrics.request(route, status or _CLIENT_GONE, seconds, n_images)
        if error is None and scope["path"] in _PROBES:
            return
        fields = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"][:_MAX_LOGGED_CHARACTERS],
            "status": status or _CLIENT_GONE,
            "images": n_images,
            "milliseconds": round(seconds * 1000, 3),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        level = logging.ERROR if error else logging.WARNING if status >= 500 else logging.INFO
        _LOG.log(level, "request", exc_info=error, extra={"fields": fields})

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if self._token is not None and scope["path"] not in _OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                message = "a token is needed (expected: Authorization: Bearer TOKEN)"
                raise _RefusalError(401, message, {"www-authenticate": "Bearer"})
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        reserved = _Reservation()
        try:
            self._reserve(reserved, self._declared_length(headers))
            scope.pop(CLIENT_WAITS, None)
            body = await self._read_body(receive, reserved, scope.get(BODY_IS_READ, False))
            if body is None:
                return
            unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
            del body  # the route frees it as soon as it can

            async def receive_read() -> Message:
                return unread.pop() if unread else await receive()

            await self._app(scope, receive_read, send)
        finally:
            self._n_buffered -= reserved.n_bytes

    async def _read_body(self, receive: Receive, reserved: _Reservation, is_there: bool) -> bytes | None:
        """The whole body; None if the client has gone."""
        parts: list[bytes] = []
        n_read = 0
        more = True
        first_deadline = asyncio.get_running_loop().time() + self._limits.read_timeout_seconds
        try:
            async with asyncio.timeout_at(None if is_there else first_deadline) as timer:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message["body"])
                    more = message["more_body"]
                    n_read += len(parts[-1])
                    self._require_length(n_read)
                    self._reserve(reserved, n_read - reserved.n_bytes)  # where no length was declared
                    if more:
                        timer.reschedule(first_deadline + n_read / _SLOWEST_BYTES_PER_SECOND)
        except TimeoutError:
            raise _RefusalError(408, "a request's body came too slowly", {"connection": "close"}) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _declared_length(self, headers: Headers) -> int:
        length = int(headers.get("content-length", "0"))
        self._require_length(length)
        return length

    def _require_length(self, n_bytes: int) -> None:
        # What still comes is read and dropped: closing at once would lose this answer.
        if n_bytes > self._limits.max_body_bytes:
            message = f"a body is too large (found: {n_bytes} bytes; expected: at most {self._limits.max_body_bytes})"
            raise _RefusalError(413, message)

    def _reserve(self, reserved: _Reservation, n_more_bytes: int) -> None:
        if n_more_bytes <= 0:
            return
        if self._n_buffered and self._n_buffered + n_more_bytes > self._limits.max_buffered_bytes:
            raise _RefusalError(503, "too many requests are being read", {"retry-after": "1"})
        self._n_buffered += n_more_bytes
        reserved.n_bytes += n_more_bytes


async def _refuse(send: Send, refusal: _RefusalError) -> None:
    body = orjson.dumps({"error": str(refusal)})
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
