"""A file of this package as a process of its own: it gets settings, gives answers, and its error is raised again here.

Not by multiprocessing, which runs the caller's main script once more in the child: a Snakemake script would start its
rule a second time. The child runs as a file, so that its package's other modules are not imported, and calls
`run_child`. Its settings come as a line of JSON over the standard input, which stays open as long as the parent lives;
its answers and its error go as lines of JSON over the standard output. What libraries print goes to the standard error:
the job's log, or a file that is quoted where the child fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import ensembleflow
from ensembleflow import errors
from ensembleflow.errors import EnsembleflowError

__all__ = ["ChildEndedError", "ChildProcess", "child_environment", "describe_end", "end_with_parent", "run_child"]

_ERROR_FIELDS = ("what", "where", "found", "expected", "hint")
_LONGEST_QUOTE = 500


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment variables, in which a child finds this very package, with `changes`."""
    path = [str(Path(ensembleflow.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **changes}


class ChildEndedError(Exception):
    """A child ended otherwise than well, and had no error of its own to give; the text says how it ended."""


class ChildProcess:
    """A child, from the start of a `with` block to its end, where it is killed if it still runs.

    Args:
        script: the file to run, which calls `run_child`.
        settings: JSON values.
        environment: changes of `child_environment`.
        quoted: keep what the child prints, to quote its last lines in `ChildEndedError`, instead of logging it.
        seconds_to_stop: how long `stop` gives the child before it is killed.
    """

    def __init__(
        self,
        script: str | Path,
        settings: object,
        *,
        environment: Mapping[str, str] | None = None,
        quoted: bool = False,
        seconds_to_stop: float = 0.0,
    ) -> None:
        self._seconds_to_stop = seconds_to_stop
        self._output: IO[bytes] | None = tempfile.TemporaryFile() if quoted else None  # noqa: SIM115 - closed at the end
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            env=child_environment(**(environment or {})),
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(settings) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which `answers` says

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the child has ended, well or not."""
        return self._process.poll() is not None

    def answers(self) -> Iterator[Any]:
        """The child's answers, JSON values, as they come; until it has ended well.

        Raises:
            EnsembleflowError: the one that ended the child, of the same class.
            ChildEndedError: it ended otherwise than well, and not by such an error.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise getattr(errors, message["class"])(**message["error"])
            yield message["answer"]
        if self._process.wait() != 0:
            raise ChildEndedError(describe_end(self._process.returncode, self._output))

    def wait(self) -> None:
        """Wait for the child to end well, its answers being of no interest; raises as `answers`."""
        for _ in self.answers():
            pass

    def stop(self) -> None:
        """Ask the child to end (SIGTERM), without waiting for it."""
        if not self.has_ended():
            self._process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._seconds_to_stop:
                self.stop()
                self._process.wait(self._seconds_to_stop)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()
            for file in (self._process.stdin, self._process.stdout, self._output):
                if file is not None:
                    file.close()


def describe_end(status: int, output: IO[bytes] | None = None) -> str:
    """How a process ended that failed, in words.

    Args:
        status: its exit status, negative after a signal.
        output: the file of what it printed; None where that went to this process's own log.
    """
    if status < 0:
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        return f"its process was killed by {signal.Signals(-status).name}{hint}"
    if output is None:
        return f"its process ended with exit status {status}: the log has what it printed"
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return f"its process ended with exit status {status}: {' / '.join(lines[-3:])[-_LONGEST_QUOTE:] or 'no message'}"


def run_child(work: Callable[[Any, Callable[[object], None]], None]) -> int:
    """Be the child of a `ChildProcess`.

    Args:
        work: called with the settings, and with the function that gives an answer, a JSON value.

    Returns:
        The exit status, 1 after an EnsembleflowError, which the parent raises again. Any other error leaves this
        function, so that its traceback is printed.
    """
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def send(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    try:
        work(json.loads(sys.stdin.readline()), lambda answer: send({"answer": answer}))
    except EnsembleflowError as error:
        # A class of another module may take other arguments: the parent raises the one that it is derived from.
        kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
        send({"class": kind, "error": {name: getattr(error, name) for name in _ERROR_FIELDS}})
        return 1
    return 0


def end_with_parent() -> None:
    """Have this child end by SIGTERM when its parent has; from then on the standard input is not to be read."""
    threading.Thread(target=_wait_for_parents_end, daemon=True).start()


def _wait_for_parents_end() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
