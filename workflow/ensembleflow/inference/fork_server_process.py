"""The process from which members' processes are forked: it has imported TensorFlow and never uses it.

Run as a file by `fork_server.ForkServer`, with a socket's file descriptor as its only argument. It says `ready` once
TensorFlow is imported. Then it is asked `["fork", script]`, with the new process's file descriptors beside it: the
process calls the script's `main` with them, all but the last one, which takes what it prints. The answer is the
process's number, or null where it must not fork. Asked `["wait", pid]`, it answers with the exit status, negative after
a signal, or null while the process lives. It ends when its parent does; the processes that it has started end when
whoever controls them does.

A process with threads must not be forked, and a GPU that is open cannot be used after a fork. Importing TensorFlow does
neither; using it does. So nothing here calls it, and each fork first makes sure that there is no other thread.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ensembleflow.models.engines.process import count_as_if_not_forked, import_without_keras, resident_files_mb

_MAX_MESSAGE_BYTES, _MAX_FDS = 4096, 16


def main() -> int:
    """Serve until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with socket.socket(fileno=int(sys.argv[1])) as asker:
        import_without_keras("tensorflow")
        asker.sendall(b'"ready"\n')
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:
                message, fds, _, _ = socket.recv_fds(asker, _MAX_MESSAGE_BYTES, _MAX_FDS)
                if not message:
                    break
                what, value = json.loads(message)
                try:
                    answer = _fork(asker, _main_of(value), fds) if what == "fork" else _status(value)
                finally:
                    for fd in fds:
                        os.close(fd)
                asker.sendall(json.dumps(answer).encode() + b"\n")
    return 0


@functools.cache
def _main_of(script: str) -> Callable[..., int]:
    # As a file, not as a module of its package: the package's other modules would only take time and memory.
    main: Callable[..., int] = runpy.run_path(script)["main"]
    return main


def _fork(asker: socket.socket, member_main: Callable[..., int], fds: Sequence[int]) -> int | None:
    if _n_threads() != 1:
        return None
    files_mb = resident_files_mb()
    pid = os.fork()
    if pid == 0:
        asker.close()
        count_as_if_not_forked(files_mb)
        _become(member_main, fds)
    return pid


def _n_threads() -> int:
    """Threads of this process, those that Python does not know of included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _become(member_main: Callable[..., int], fds: Sequence[int]) -> NoReturn:
    status = 1
    try:
        *control, output = fds
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
        status = member_main(*control)
    except BaseException:
        traceback.print_exc()
    finally:
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError):
                file.flush()
        os._exit(status)  # what this process has set up to be done at its end is not the forked one's to do


def _status(pid: int) -> Any:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1  # it was waited for before
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    sys.exit(main())
