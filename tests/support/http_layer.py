"""The server's HTTP layer alone, at a real socket, before an application that tells what it was asked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from ensembleflow.serving.http.admission import Admission, RequestLimits
from ensembleflow.serving.http.connection import Connection, ConnectionLimits
from ensembleflow.serving.http_server import listen
from ensembleflow.serving.metrics import Metrics
from support.server_process import PATIENCE_SECONDS, read_all

MAX_BODY_BYTES = 2**16

Asked = tuple[str, str, bytes]  # method, target, body


class HttpLayer:
    """Where it listens, and what whole requests its application has seen.

    Attributes:
        address: host and port.
        headers: of the request that was last seen.
    """

    def __init__(self, address: tuple[str, int], read_timeout_seconds: float) -> None:
        self.address = address
        self.headers: dict[str, str] = {}
        self._asked: defaultdict[int, list[Asked]] = defaultdict(list)
        self._read_timeout_seconds = read_timeout_seconds

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        try:
            async with asyncio.timeout(self._read_timeout_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message["body"]
                    more = message["more_body"]
        except TimeoutError:
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 408, "headers": headers})
            await send({"type": "http.response.body"})
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self._asked[scope["client"][1]].append((scope["method"], target.decode("ascii"), body))
        self.headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        content = sha256(body).hexdigest().encode()
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def ask(self, pieces: Sequence[bytes]) -> tuple[bytes, list[Asked]]:
        """Send the pieces over a connection; what came back until its end, and the requests that were seen."""
        with socket.create_connection(self.address, timeout=PATIENCE_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    connection.sendall(piece)
            except OSError:  # refused before all of it was sent
                pass
            port = connection.getsockname()[1]
            answer = read_all(connection)
        return answer, self._asked.pop(port, [])


@contextmanager
def http_layer(read_timeout_seconds: float) -> Iterator[HttpLayer]:
    listener = listen("127.0.0.1", 0)
    layer = HttpLayer(listener.getsockname()[:2], read_timeout_seconds)
    admission = Admission(layer.answer, RequestLimits(MAX_BODY_BYTES, read_timeout_seconds), Metrics(tuple, int, bool))
    config = uvicorn.Config(
        admission, ws="none", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=read_timeout_seconds
    )
    state, limits = ServerState(), ConnectionLimits(100, read_timeout_seconds)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await loop.create_server(lambda: Connection(config, state, {}, limits=limits), sock=listener)
        started.set()
        async with server:
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(PATIENCE_SECONDS)
        yield layer
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
