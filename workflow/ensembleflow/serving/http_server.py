"""The HTTP server: one process, one event loop, a graceful stop."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from ensembleflow.errors import EnsembleflowError, ServingError
from ensembleflow.serving.app import create_app
from ensembleflow.serving.http.admission import Admission, RequestLimits, needed_body_bytes
from ensembleflow.serving.http.connection import ConnectionLimits
from ensembleflow.serving.http.uvicorn_server import make_uvicorn_server
from ensembleflow.serving.service import Service

__all__ = [
    "AddressError",
    "HttpServer",
    "ServerLimits",
    "is_loopback",
    "listen",
    "run_server",
    "server_in_thread",
    "url_of",
]

_LOG = logging.getLogger("ensembleflow.serving")

_BACKLOG = 2048
_OTHER_FILES = 256  # descriptors for members, logs and the interpreter
_KEEP_ALIVE_SECONDS = 75


class AddressError(EnsembleflowError):
    """The server cannot listen where it should."""


@dataclass(frozen=True)
class ServerLimits:
    """How long the server waits, and for how many.

    Attributes:
        request: of each request.
        max_connections: open connections; further ones are answered 503.
        grace_seconds: how long requests at work may take once the server stops.
    """

    request: RequestLimits
    max_connections: int = 4096
    grace_seconds: float = 30.0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        AddressError: the address is unknown, not of this machine, forbidden, or in use.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise AddressError(
            "the server cannot listen",
            where=f"{host}:{port}",
            found=error.strerror or error,
            hint="choose another address or port; --port 0 takes a free one",
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a client of this machine finds the server."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def run_server(service: Service, listener: socket.socket, limits: ServerLimits, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops without finishing what is at work.

    Args:
        service: the ensemble, not yet started.
        listener: where to serve; it is closed at the end.
        limits: of requests and connections.
        on_ready: called once the ensemble is ready.

    Raises:
        BundleError: the ensemble does not answer as its bundle says.
        MemberError: a member cannot run.
    """

    async def serve() -> None:
        server = HttpServer(service, listener, limits)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        await server.serve(ready)

    def ready() -> None:
        # What the imports and the start left stays; looking through it anew holds up every request for some 75 ms.
        gc.collect()
        gc.freeze()
        on_ready()

    asyncio.run(serve())


@contextmanager
def server_in_thread(
    service: Service, listener: socket.socket, limits: ServerLimits | None = None, patience_seconds: float = 600.0
) -> Iterator[str]:
    """Serve while the `with` block runs, which is given the server's URL once the ensemble is ready.

    Args:
        service: the ensemble, not yet started.
        listener: where to serve; it is closed at the end.
        limits: of requests and connections; by default what the longest request needs.
        patience_seconds: how long the ensemble may take to be ready.

    Raises:
        BundleError: the ensemble does not answer as its bundle says.
        MemberError: a member cannot run.
        ServingError: it was not ready in time.
    """
    url = url_of(listener)
    if limits is None:
        limits = ServerLimits(RequestLimits(needed_body_bytes(service.signature)))
    server = HttpServer(service, listener, limits)
    ready = threading.Event()

    def serve() -> None:
        try:
            asyncio.run(server.serve(ready.set))
        finally:
            ready.set()

    with ThreadPoolExecutor(1, thread_name_prefix="http-server") as threads:
        served = threads.submit(serve)
        try:
            if not ready.wait(patience_seconds):
                raise ServingError("the ensemble is not ready", found=f"nothing after {patience_seconds:g} s")
            if served.done():
                served.result()
            yield url
        finally:
            server.stop()
    served.result()


class HttpServer:
    """The server in an event loop. It answers from the start; `/v2/health/ready` says when the members do.

    Args:
        service: the ensemble, not yet started.
        listener: where to serve; it is closed at the end.
        limits: of requests and connections.
    """

    def __init__(self, service: Service, listener: socket.socket, limits: ServerLimits) -> None:
        self._service = service
        self._listener = listener
        connection_limits = ConnectionLimits(
            _affordable_connections(limits.max_connections), limits.request.read_timeout_seconds
        )
        self._server = make_uvicorn_server(
            Admission(create_app(service), limits.request, service.metrics),
            connection_limits,
            backlog=_BACKLOG,
            keep_alive_seconds=_KEEP_ALIVE_SECONDS,
            grace_seconds=limits.grace_seconds,
        )
        service.metrics.connections.set_function(self._server.n_connections)

    def stop(self) -> None:
        """Accept nothing more, finish what is at work and end the members; called again: without finishing."""
        self._server.stop()

    async def serve(self, on_ready: Callable[[], None]) -> None:
        """Start the ensemble, call `on_ready` once it is ready, and serve until `stop`.

        Raises:
            BundleError: the ensemble does not answer as its bundle says.
            MemberError: a member cannot run.
        """
        start = asyncio.create_task(self._start(on_ready))
        try:
            with self._listener:
                await self._server.serve(sockets=[self._listener])
        finally:
            start.cancel()
            await asyncio.wait([start])
            await self._service.close()
            _LOG.info("stopped")
        if not start.cancelled():
            start.result()

    async def _start(self, on_ready: Callable[[], None]) -> None:
        try:
            await self._service.start()
        except BaseException:
            self.stop()
            raise
        _LOG.info("ready", extra={"fields": {"members": len(self._service.bundle.manifest.members)}})
        on_ready()


def _affordable_connections(wanted: int) -> int:
    """As many as the process may have open files for, after raising that limit as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            affordable = max(1, soft - _OTHER_FILES)
            _LOG.warning("open files are limited to %d: at most %d connections", soft, affordable)
            return affordable
    return wanted
