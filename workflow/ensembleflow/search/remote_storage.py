"""Optuna's storage in a PostgreSQL or MySQL database, or behind Optuna's gRPC proxy."""

from __future__ import annotations

import os
import random
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage
from sqlalchemy import URL, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ensembleflow.config.storage_url import PROXY_PORT, check_storage_url, without_password
from ensembleflow.errors import SearchError
from ensembleflow.search.retrying_storage import RetryingStorage

__all__ = ["open_remote_storage"]

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}

_CONNECT_SECONDS = 10
# A database with no connection to spare is asked again for so long; most jobs hold one for as long as they train.
_BUSY_SECONDS = 15


def open_remote_storage(url: str, pool_size: int = 1) -> BaseStorage:
    """Connect to a database, in which Optuna's tables are made if it has none, or to a proxy.

    Operations that fail because the server is not there, or because two of them blocked each other, are repeated
    for a minute.

    Args:
        url: as the config's `search.storage`.
        pool_size: connections to a database that stay open.

    Raises:
        SearchError: the URL is no such storage's, or the server cannot be reached within about 20 s, or refuses
            the user, or its tables are another Optuna version's. No message has the password.
    """
    try:
        check_storage_url(url)
    except ValueError as error:
        raise SearchError(
            "this is no URL of a storage",
            where="config: search.storage",
            found=without_password(url),
            expected=str(error).removeprefix("must be "),
        ) from None
    if url.startswith("grpc://"):
        return RetryingStorage(_open_proxy(url), without_password(url))
    parsed = _parse(url)
    _wait_for_connection(parsed)
    return RetryingStorage(_open_database(parsed, pool_size), _shown(parsed))


def _open_proxy(url: str) -> BaseStorage:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PROXY_PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.path.strip("/") or parts.username:
        raise SearchError(
            "this is no URL of a storage proxy",
            where="config: search.storage",
            found=without_password(url),
            expected="grpc://HOST:PORT",
        )
    # The proxies of http_proxy lead out of a cluster, not to its other nodes.
    os.environ.setdefault("no_grpc_proxy", host)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = optuna.storages.GrpcStorageProxy(host=f"[{host}]" if ":" in host else host, port=port)
    try:
        proxy.wait_server_ready(timeout=_CONNECT_SECONDS)
    except ConnectionError:
        raise SearchError(
            "the storage proxy does not answer",
            where=f"{host}:{port}",
            found=f"no answer in {_CONNECT_SECONDS} s",
            expected="a running proxy that this machine may connect to",
            hint="start it: ensembleflow storage-proxy --host 0.0.0.0 (in this project's folder, on that host)",
        ) from None
    return proxy


def _parse(url: str) -> URL:
    parsed: URL | None = None
    with suppress(ArgumentError, ValueError):
        parsed = make_url(url)
    if parsed is None or not parsed.database or not 0 < (parsed.port or 1) < 2**16:
        raise SearchError(
            "this is no URL of a database",
            where="config: search.storage",
            found=without_password(url),
            expected=f"{url.partition('://')[0]}://USER@HOST:PORT/DATABASE",
            hint="in a user name or password write @ as %40, : as %3A, / as %2F",
        )
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _shown(url: URL) -> str:
    """Host, port and database in words, without user and password."""
    host = url.host or url.query.get("host") or url.query.get("unix_socket") or "localhost"
    port = url.port or (5432 if url.get_backend_name() == "postgresql" else 3306)
    return f"{host}:{port}, database {url.database}"


def _engine_arguments(url: URL, pool_size: int) -> dict[str, Any]:
    """A connection is tested before use, since a firewall or the server may end one that idles for an epoch."""
    connect: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if url.get_backend_name() == "postgresql":
        # Otherwise a server that has lost its power is waited for by the operating system: two hours.
        connect |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        connect |= {"application_name": "ensembleflow", "tcp_user_timeout": 60_000}
    else:
        connect |= {"read_timeout": 60, "write_timeout": 60}
        options = Path("~/.my.cnf").expanduser()
        if url.password is None and "read_default_file" not in url.query and options.is_file():
            connect |= {"read_default_file": str(options)}
    connect = {name: value for name, value in connect.items() if name not in url.query}
    return {"connect_args": connect, "pool_size": pool_size, "max_overflow": pool_size, "pool_pre_ping": True}


def _wait_for_connection(url: URL) -> None:
    """Connect once.

    Raises:
        SearchError: it cannot be done; the message has what the server or driver says.
    """
    arguments = _engine_arguments(url, 1)
    if "read_timeout" in arguments["connect_args"]:  # PyMySQL's connect_timeout does not cover the greeting
        arguments["connect_args"]["read_timeout"] = _CONNECT_SECONDS
    try:
        engine = create_engine(url, **arguments)
    except (SQLAlchemyError, ImportError, TypeError) as error:
        raise _refused(url, error) from None
    busy_until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            with engine.connect():
                return
        except (SQLAlchemyError, TypeError, ValueError, RuntimeError, OSError) as error:
            if not _is_busy(error) or time.monotonic() > busy_until:
                raise _refused(url, error) from None
            time.sleep(0.5 + random.random())
        finally:
            engine.dispose()


def _is_busy(error: BaseException) -> bool:
    text = str(error).lower()
    return any(words in text for words in ("too many c", "max_user_connections", "connection slots", "starting up"))


def _refused(url: URL, error: BaseException) -> SearchError:
    message = _driver_message(url, error)
    lowered = message.lower()
    hint = "is the server running, and may this machine connect to it? Ports and firewalls are often closed on nodes"
    expected = "a server that answers"
    if _is_busy(error):
        expected = "a connection to spare: each process of a running job holds one"
        hint = "raise the server's max_connections, or put one proxy before it: ensembleflow storage-proxy"
    elif "permission denied" in lowered or "command denied" in lowered:
        expected = "a user who may make tables"
        hint = f"let the database's owner say: GRANT ALL ON SCHEMA public TO {url.username}"
        if url.get_backend_name() == "mysql":
            hint = f"let an administrator say: GRANT ALL ON {url.database}.* TO {url.username}"
    elif any(word in lowered for word in ("password", "access denied", "authentication", "role", "pg_hba")):
        expected = "a user that the server admits"
        hint = "PostgreSQL: ~/.pgpass or PGPASSWORD; MySQL: ~/.my.cnf, [client] password=…; on every node"
    elif "unknown database" in lowered or ("database" in lowered and "does not exist" in lowered):
        expected = "a database, which may be empty"
        hint = f"make it: CREATE DATABASE {url.database}"
    elif not isinstance(error, DBAPIError):
        expected, hint = "a URL that the database's driver takes", "check its name, its options and their spelling"
    return SearchError("the database cannot be used", where=_shown(url), found=message, expected=expected, hint=hint)


def _driver_message(url: URL, error: BaseException) -> str:
    """What the driver says, in one line and without the password."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return without_password(text.replace(url.password, "***") if url.password else text)


def _open_database(url: URL, pool_size: int) -> BaseStorage:
    for tries_left in range(9, -1, -1):
        try:
            backend = optuna.storages.RDBStorage(
                url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
                engine_kwargs=_engine_arguments(url, pool_size),
            )
            return optuna.storages.get_storage(backend)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Jobs that start together make the same tables: all but one of them fail, and then find them made.
            cause = error.__cause__ or error
            if tries_left == 0 or "denied" in str(cause).lower():
                raise _refused(url, cause) from None
            time.sleep(random.uniform(0.1, 1.0))
        except (RuntimeError, AssertionError) as error:
            raise SearchError(
                "the database's tables were made by another version of Optuna",
                where=_shown(url),
                found=_driver_message(url, error),
                expected=f"tables of Optuna {optuna.__version__}",
                hint="use another database, or, when no other program needs them: optuna storage upgrade --storage URL",
            ) from None
    raise AssertionError("unreachable")
