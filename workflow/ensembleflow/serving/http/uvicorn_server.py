"""uvicorn's server with our connections, and without its hands on the process's signals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from ensembleflow.serving.http.connection import Connection, ConnectionLimits

__all__ = ["UvicornServer", "make_uvicorn_server"]

_LOG = logging.getLogger("ensembleflow.serving")


class UvicornServer(uvicorn.Server):
    """uvicorn's server, whose signals are handled around it: it would end the process before the members are ended."""

    def stop(self) -> None:
        """Accept nothing more and finish what is at work; called again: without finishing."""
        if not self.should_exit:
            _LOG.info("stopping")
        self.force_exit = self.should_exit
        self.should_exit = True

    def n_connections(self) -> int:
        """How many are open."""
        return len(self.server_state.connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield


def make_uvicorn_server(
    app: ASGIApp, limits: ConnectionLimits, *, backlog: int, keep_alive_seconds: int, grace_seconds: float
) -> UvicornServer:
    """A server of an application, for sockets that listen already.

    Args:
        app: the application.
        limits: of each connection.
        backlog: connections that may wait to be accepted.
        keep_alive_seconds: how long a connection may wait for its next request.
        grace_seconds: how long requests at work may take once the server stops.
    """
    return UvicornServer(
        uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], partial(Connection, limits=limits)),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=backlog,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=cast(int, grace_seconds),
        )
    )
