"""Members' processes without an import of TensorFlow each: they are forked from one that has imported it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from ensembleflow.inference.member_process import MemberProcess, spawn_process
from ensembleflow.models.engines import DEFAULT_ENGINE

__all__ = ["ForkServer", "ForkedProcess", "start_member_process"]

_SCRIPT = Path(__file__).with_name("fork_server_process.py")

# As long as a member's own start may take.
_START_TIMEOUT_SECONDS = 600.0
_ANSWER_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.01


class ForkedProcess:
    """A process that a fork server has started: the part of `subprocess.Popen` that is used of a member's.

    Attributes:
        pid: the process's number, which is not given anew before the process was waited for.
    """

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._status: int | None = None

    def kill(self) -> None:
        """End it at once; no-op once it was waited for."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative after a signal.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._status is None:
            self._status = self._server.status(self.pid)
            if self._status is None:
                if until is not None and time.monotonic() >= until:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
                time.sleep(_POLL_SECONDS)
        return self._status


class ForkServer:
    """A process that has imported TensorFlow, and from which the members' processes of one job are forked.

    That takes a tenth of a second instead of an import a process. It begins with the first process that is asked for.
    Use it in a `with` block: leaving it ends the server, and with it nothing else. It may be asked from any thread.

    Only for TensorFlow on CPU cores: the other engines are imported in less than a second, and may start threads by
    being imported; and a GPU is hidden from the server.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._output: IO[bytes] | None = None
        self._works = os.name == "posix" and Path("/proc/self/task").is_dir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._end()

    def fork(self, script: Path, fds: Sequence[int], output: IO[bytes]) -> ForkedProcess | None:
        """Fork a process.

        Args:
            script: the file whose `main` it runs.
            fds: the file descriptors that it is given as its arguments, under numbers of its own.
            output: the open file that takes what it prints.

        Returns:
            None where that cannot be done, or the server has died: the process has to be started afresh.
        """
        with self._lock:
            pid = self._ask(["fork", str(script)], [*fds, output.fileno()]) if self._begun() else None
        return None if pid is None else ForkedProcess(self, pid)

    def status(self, pid: int) -> int | None:
        """The exit status of a process that was forked; None while it lives."""
        with self._lock:
            if self._socket is not None:
                status: int | None = self._ask(["wait", pid])
                if self._socket is not None:
                    return status
        # The server is gone: what it started has another parent, which waits for it, or never does.
        try:
            return 1 if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return 1

    def _begun(self) -> bool:
        if self._works and self._process is None:
            self._works = self._begin()
        return self._works

    def _begin(self) -> bool:
        self._socket, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        with theirs:
            try:
                self._process = spawn_process(_SCRIPT, [theirs.fileno()], self._output, forks=True)
            except OSError:
                self._end()
                return False
        self._socket.settimeout(_START_TIMEOUT_SECONDS)
        return bool(self._answer() == "ready")

    def _ask(self, question: list[Any], fds: Sequence[int] = ()) -> Any:
        assert self._socket is not None
        self._socket.settimeout(_ANSWER_TIMEOUT_SECONDS)
        try:
            socket.send_fds(self._socket, [json.dumps(question).encode()], fds)
        except OSError:
            self._end()
            return None
        return self._answer()

    def _answer(self) -> Any:
        """None, and the server has ended, where there is no answer."""
        assert self._socket is not None
        text = b""
        try:
            while not text.endswith(b"\n"):
                more = self._socket.recv(4096)
                if not more:
                    raise EOFError
                text += more
        except (OSError, EOFError):
            self._end()
            return None
        return json.loads(text)

    def _end(self) -> None:
        self._works = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for file in (self._socket, self._output):
            if file is not None:
                file.close()
        self._socket = self._output = None


def start_member_process(
    script: Path,
    engine: str,
    fds: Sequence[int],
    output: IO[bytes],
    *,
    gpu: str | None = None,
    fork_server: ForkServer | None = None,
) -> MemberProcess:
    """Start a member's process: forked where that is possible, else afresh.

    Args:
        script: the file that it runs, by calling its `main` with the file descriptors.
        engine: what it will compute with.
        fds: the file descriptors that are its arguments.
        output: the open file that takes what it prints.
        gpu: the GPU that it sees, by UUID or number; None hides all GPUs.
        fork_server: what it may be forked from.
    """
    if fork_server is not None and engine == DEFAULT_ENGINE and gpu is None:
        forked = fork_server.fork(script, fds, output)
        if forked is not None:
            return forked
    return spawn_process(script, fds, output, gpu=gpu)
