"""One client's connection: uvicorn's, with limits that it lacks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

__all__ = ["Connection", "ConnectionLimits"]

_MAX_UNPARSED_BYTES = 128 * 1024  # of a head; what one read brings may be more
_MAX_SURPLUS = 100  # connections that are told that there are too many; more are cut


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may take.

    Attributes:
        max_connections: open connections; further ones are answered 503.
        read_timeout_seconds: for a request's head, from its first byte or the connection's start; a client that
            reads nothing of its answer for so long is cut as well.
    """

    max_connections: int
    read_timeout_seconds: float


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection that ends when a request's head is late or long, or an answer is not read.

    Args:
        config: as uvicorn gives it; `server_state`, `app_state` and `_loop` likewise.
        limits: the connection's.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._n_unparsed = 0
        self._n_unsent: int | None = None  # when it was last looked at
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._surplus = False
        self._idle = False  # answered, and nothing has come since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await a request's head, unless there are far too many connections."""
        super().connection_made(transport)
        n_surplus = len(self.connections) - self._limits.max_connections
        self._surplus = n_surplus > 0
        if n_surplus > _MAX_SURPLUS:
            transport.abort()
        self._await_head(self._limits.read_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, but for a surplus connection or an endless head."""
        if self._surplus:
            # Only now: an answer to what has not been read yet would be lost.
            self._refuse(503, "too many connections", b"retry-after: 1\r\n")
            return
        if self._idle:
            self._idle = False
            self._await_head(self._limits.read_timeout_seconds)
        self._n_unparsed += len(data)
        super().data_received(data)
        if self._n_unparsed > max(_MAX_UNPARSED_BYTES, len(data)) and not self.transport.is_closing():
            self._refuse(431, "a request's head is too long")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._n_unparsed = 0
        self._idle = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        self._n_unparsed = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Await the next head."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._idle = not self.cycle.more_body
            self._await_head(self.timeout_keep_alive if self._idle else self._limits.read_timeout_seconds)

    def pause_writing(self) -> None:
        """More is to be sent than the client reads."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._stop_watching()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _await_head(self, seconds: float) -> None:
        # What is left of an answered request's body counts as late, too.
        self._stop_waiting()
        self._head_timer = self.loop.call_later(seconds, self._on_late_head)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_late_head(self) -> None:
        if self.flow.write_paused:  # an answer is on its way, which the other timer watches
            self._await_head(self._limits.read_timeout_seconds)
        elif self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._n_unparsed:
            self._refuse(408, "a request's head came too slowly")
        else:
            self.transport.close()

    def _watch_sending(self) -> None:
        n_unsent = self.transport.get_write_buffer_size()
        if self._n_unsent is not None and n_unsent >= self._n_unsent:
            self.transport.abort()  # nothing was read since the last look
            return
        self._n_unsent = n_unsent
        self._send_timer = self.loop.call_later(self._limits.read_timeout_seconds, self._watch_sending)

    def _stop_watching(self) -> None:
        self._n_unsent = None
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _refuse(self, status: int, message: str, headers: bytes = b"") -> None:
        body = orjson.dumps({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\n" + headers
        self.transport.write(
            STATUS_LINE[status] + head + b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        self.transport.close()
