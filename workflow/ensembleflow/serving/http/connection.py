"""One client's connection: uvicorn's, with limits that it lacks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ensembleflow.serving.http.framing import HeadFault, head_fault, head_without_offer, waits_to_send

__all__ = ["BODY_IS_READ", "CLIENT_GONE", "CLIENT_WAITS", "Connection", "ConnectionLimits", "GatheringTransport"]

# What a request's scope tells beyond ASGI: whether the whole body is there, a future that ends with the connection,
# and whether the client sends the body once it is asked to.
BODY_IS_READ, CLIENT_GONE = "ensembleflow.body_is_read", "ensembleflow.client_gone"
CLIENT_WAITS = "ensembleflow.client_waits"

_MAX_UNPARSED_BYTES = 128 * 1024  # of a head; what one read brings may be more
_MAX_SURPLUS = 100  # connections that are told that there are too many; more are cut
_MAX_GATHERED_BYTES = 64 * 1024  # written as one piece, which copies them


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

    An offer to go on in another protocol (h2c, TLS) is passed over: the request is read as if it were not there.

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
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._n_unparsed = 0
        self._n_unsent: int | None = None  # when it was last looked at
        self._head_due: float | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._surplus = False
        self._idle = False  # answered, and nothing has come since
        self._offered = False  # another protocol: the parser takes what follows for that
        self._fault: HeadFault | None = None
        self._last_answer: bytes | None = None  # once what came before it is answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await a request's head, unless there are far too many connections."""
        super().connection_made(transport)
        self.transport = self._gathering = GatheringTransport(transport, self.loop)
        n_surplus = len(self.connections) - self._limits.max_connections
        self._surplus = n_surplus > 0
        if n_surplus > _MAX_SURPLUS:
            transport.abort()
        self._await_head(self._limits.read_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests at work, and forget the timers."""
        self._gone.set_result(None)
        self._stop_waiting()
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, but for a surplus connection or an endless head."""
        if self._last_answer is not None:
            return
        if self._surplus:
            # Only now: an answer to what has not been read yet would be lost.
            self._refuse(503, "too many connections", b"retry-after: 1\r\n")
            return
        if self._idle:
            self._idle = False
            self._await_head(self._limits.read_timeout_seconds)
        self._n_unparsed += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError as error:
            fault = self._fault or HeadFault(400, f"this is no HTTP/1.1 ({str(error) or 'unreadable target'})")
            self._refuse(fault.status, fault.message)
        if self._n_unparsed > max(_MAX_UNPARSED_BYTES, len(data)) and not self._ends():
            self._refuse(431, "a request's head is too long")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._offered = False
        self.scope[CLIENT_GONE] = self._gone  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The head is there."""
        version, headers = self.parser.get_http_version(), self.headers
        headers[:] = [(name, value.rstrip(b" \t")) for name, value in headers]
        self._fault = head_fault(self.parser.get_method(), version, headers)
        if self._fault is not None:
            raise ValueError(self._fault.message)  # which ends the parser
        self._offered = self.parser.should_upgrade()
        if self._offered:
            return
        self.expect_100_continue = waits_to_send(version, headers)
        if self.expect_100_continue:
            self.scope[CLIENT_WAITS] = True  # type: ignore[literal-required]
        self.headers = []  # for fields behind the body: none of the head's, whatever their names
        self._n_unparsed = 0
        self._idle = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        self._n_unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole body is there."""
        if self._offered:
            return
        super().on_message_complete()
        self.cycle.more_body = False
        if not self.parser.should_keep_alive():  # as fields behind the body say, too
            self.cycle.keep_alive = False
        self.scope[BODY_IS_READ] = True  # type: ignore[literal-required]
        if not self.pipeline:
            self.flow.resume_reading()  # which a long body has paused: the client's end is to be seen

    def on_response_complete(self) -> None:
        """Send the answer, and await the next head."""
        self._gathering.flush()
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._last_answer is not None:
            self._end(self._last_answer)
            return
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

    def _parse(self, unparsed: memoryview) -> None:
        while unparsed:
            try:
                self.parser.feed_data(unparsed)
                return
            except httptools.HttpParserUpgrade as offer:
                # A parser anew, told all but the offer, finds the body's end by the same rules as any other's.
                version = self.parser.get_http_version()
                head = head_without_offer(self.parser.get_method(), self.url, version, self.headers)
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                self.parser.feed_data(head)
                unparsed = unparsed[offer.args[0] :]

    def _await_head(self, seconds: float) -> None:
        # What is left of an answered request's body counts as late, too.
        self._head_due = self.loop.time() + seconds
        # A timer that comes too early is only set anew then: a new one for each request would cost more.
        if self._head_timer is None or self._head_timer.when() > self._head_due:
            self._set_head_timer(self._head_due)

    def _stop_waiting(self) -> None:
        self._head_due = None

    def _set_head_timer(self, due: float) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_at(due, self._on_head_timer)

    def _on_head_timer(self) -> None:
        self._head_timer = None
        if self._head_due is None:
            return
        if self.loop.time() < self._head_due:
            self._set_head_timer(self._head_due)
        else:
            self._on_late_head()

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
        """Read no further, and say why; the requests before it are answered first."""
        body = orjson.dumps({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\n" + headers
        answer = STATUS_LINE[status] + head + b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        awaited = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is not None and self.cycle.more_body:  # its body is what is refused
            if self.cycle.response_started:
                self.transport.close()  # it has its answer
                return
            awaited = bool(self.pipeline)
            if awaited:
                self.pipeline.popleft()
        if awaited:
            self._last_answer = answer
        else:
            self._end(answer)

    def _end(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _ends(self) -> bool:
        return self._last_answer is not None or self.transport.is_closing()


class GatheringTransport(asyncio.Transport):
    """A connection's transport, which sends an answer's head and body as one piece: each piece costs a system call.

    Args:
        transport: the connection's own.
        loop: at whose next turn what was written is sent, unless `flush` or `close` comes first.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []
        self._n_bytes = 0
        self._closed = False

    def write(self, data: Any) -> None:
        """Send it, soon; nothing is sent once the connection is to be closed."""
        if self._closed:
            return
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)
        self._n_bytes += len(data)

    def flush(self) -> None:
        """Send what was written."""
        written, self._written = self._written, []
        if self._n_bytes <= _MAX_GATHERED_BYTES:
            written = [b"".join(written)] if written else []
        self._n_bytes = 0
        for data in written:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection once all is sent."""
        self.flush()
        self._closed = True
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and are not sent."""
        return self._n_bytes + self._transport.get_write_buffer_size()
