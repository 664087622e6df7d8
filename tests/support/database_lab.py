"""Real database servers in temporary folders, on this machine's loopback only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pymysql
import pytest

from ensembleflow.errors import SearchError
from ensembleflow.search.storage import open_storage

PASSWORD = "s3cr#t/word"
QUOTED_PASSWORD = "s3cr%23t%2Fword"


class Server:
    """A database server.

    Attributes:
        url: of its database `trials`, with a password.
        port: on 127.0.0.1.
    """

    def __init__(self, url: str, port: int, command: Sequence[str], accepts: Callable[[], None]) -> None:
        self.url = url
        self.port = port
        self._command = command
        self._accepts = accepts
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                return self._accepts()
            except (psycopg.Error, pymysql.Error):
                assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
                time.sleep(0.1)
        raise AssertionError(f"{self._command[0]} does not answer")

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it at once; the data stay."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)


def refused(url: str) -> str:
    """The one message that opening the URL ends in, which shows no password."""
    with pytest.raises(SearchError) as told:
        open_storage("unused", url)
    message = str(told.value)
    assert PASSWORD not in message
    assert QUOTED_PASSWORD not in message
    assert "wrong-word" not in message
    assert "hint:" in message or "expected:" in message
    assert len(message.splitlines()) <= 6
    assert told.value.__context__ is None or told.value.__suppress_context__, "no traceback of the driver's"
    return message


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require(program: Path | str | None, package: str) -> str:
    if program is None:
        reason = f"Debian's {package} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(program)


def _as_user(user: str, *command: str) -> list[str]:
    return ["runuser", "-u", user, "--", *command] if os.geteuid() == 0 else list(command)


@contextmanager
def postgresql() -> Iterator[Server]:
    """PostgreSQL with the user `searcher`, who needs a password."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    folder_of_programs = Path(_require(found[-1] if found else None, "postgresql")).parent
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data, password_file, port = folder / "data", folder / "password", free_port()
        password_file.write_text(PASSWORD)
        initialise = [str(folder_of_programs / "initdb"), "--pgdata", str(data), "--username=searcher", "--no-sync"]
        initialise += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C"]
        subprocess.run(_as_user("postgres", *initialise), check=True, capture_output=True)
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 20,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # Not through runuser, which would stay in between and not pass the signals on.
        command = [str(folder_of_programs / "postgres"), "-D", str(data), *options]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]

        def accepts() -> None:
            psycopg.connect(
                host="127.0.0.1", port=port, user="searcher", password=PASSWORD, dbname="postgres", connect_timeout=2
            ).close()

        server = Server(f"postgresql://searcher:{QUOTED_PASSWORD}@127.0.0.1:{port}/trials", port, command, accepts)
        server.start()
        try:
            with psycopg.connect(
                host="127.0.0.1", port=port, user="searcher", password=PASSWORD, dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("CREATE DATABASE trials")
                connection.execute("CREATE DATABASE other_version")
                connection.execute("CREATE DATABASE empty")
                connection.execute(f"CREATE USER guest PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mariadb() -> Iterator[Server]:
    """MariaDB with the user `searcher`, who needs a password."""
    installer = _require(shutil.which("mariadb-install-db"), "mariadb-server")
    program = _require(shutil.which("mariadbd") or next(Path("/usr/sbin").glob("mariadbd"), None), "mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
    try:
        data, unix_socket, port = folder / "data", folder / "mariadb.sock", free_port()
        owner = ["--user=root"] if os.geteuid() == 0 else []
        install = [installer, "--no-defaults", f"--datadir={data}", "--skip-test-db", *owner]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        command = [program, "--no-defaults", f"--datadir={data}", f"--socket={unix_socket}", f"--port={port}", *owner]
        command += ["--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"]
        command += [f"--pid-file={folder / 'pid'}", "--skip-log-bin", "--skip-name-resolve"]

        def accepts() -> None:
            pymysql.connect(unix_socket=str(unix_socket), user="root", connect_timeout=2).close()

        server = Server(f"mysql://searcher:{QUOTED_PASSWORD}@127.0.0.1:{port}/trials", port, command, accepts)
        server.start()
        try:
            with pymysql.connect(unix_socket=str(unix_socket), user="root") as connection:
                cursor = connection.cursor()
                cursor.execute("CREATE DATABASE trials")
                cursor.execute("CREATE DATABASE empty")
                cursor.execute("CREATE USER searcher@'%%' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT ALL ON trials.* TO searcher@'%'")
                cursor.execute("CREATE USER guest@'%%' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT SELECT ON empty.* TO guest@'%'")
            yield server
        finally:
            server.stop(signal.SIGTERM)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
