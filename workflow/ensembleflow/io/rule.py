"""What every job does around its one function: log to the rule's file, tell a user's mistake in one message."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ensembleflow.errors import EnsembleflowError, StorageError
from ensembleflow.io.atomic import disk_fault

__all__ = ["rule_log"]


@contextmanager
def rule_log(path: str | Path, attempt: int = 1) -> Iterator[logging.Logger]:
    """Send the package's log to `path` (all of it) and to the terminal (warnings and `progress` records).

    What libraries print, in Python or below it, goes to `path` as well.

    Ctrl-C ends the process with exit code 130 and without a traceback, which tells nothing. A user's mistake
    (EnsembleflowError), or a disk that cannot be written, ends the process with exit
    code 1 and one message on the terminal and in the log; anything else keeps its traceback.

    Args:
        path: the rule's log.
        attempt: of a rule that is tried again (from 1). The terminal then hears only the message's first line.
    """
    logger = logging.getLogger("ensembleflow")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        # Names of files may hold bytes that are no UTF-8.
        log_file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115 - closed below
    except OSError as error:
        sys.exit(f"Error: {_storage_error(error)}")
    stdout_copy = os.dup(1)
    terminal_file = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(log_file.fileno(), 1)
    os.dup2(log_file.fileno(), 2)
    file_handler = logging.StreamHandler(log_file)
    file_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    terminal = logging.StreamHandler(terminal_file)
    terminal.setFormatter(_TerminalFormatter(attempt))
    terminal.addFilter(lambda record: record.levelno >= logging.WARNING or getattr(record, "progress", False))
    logger.handlers = [file_handler, terminal]
    try:
        yield logger
    except EnsembleflowError as error:
        logger.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        logger.info("stopped by Ctrl-C")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if disk_fault(error):
            logger.error("%s", _storage_error(error))
            sys.exit(1)
        logger.handlers = [file_handler]  # Python itself shows it on the terminal
        logger.exception("unexpected failure")
        raise
    finally:
        with suppress(OSError):  # the log's disk is full
            sys.stdout.flush()
            sys.stderr.flush()
        os.dup2(terminal_file.fileno(), 2)
        os.dup2(stdout_copy, 1)
        os.close(stdout_copy)
        logger.handlers = []
        with suppress(OSError):
            log_file.close()
        terminal_file.close()


class _TerminalFormatter(logging.Formatter):
    """Warnings and errors say that they are, among what Snakemake prints."""

    def __init__(self, attempt: int) -> None:
        super().__init__()
        self._attempt = attempt

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno < logging.WARNING:
            return text
        if self._attempt > 1 and record.levelno >= logging.ERROR:
            text = f"{text.splitlines()[0]} (attempt {self._attempt})"
        return f"{record.levelname.capitalize()}: {text}"


def _storage_error(error: Exception) -> StorageError:
    return StorageError(
        "a file could not be written or read",
        where=getattr(error, "filename", None),
        found=disk_fault(error) or error,
        hint="free some space or mend the permissions, then run the same command again: finished work is reused",
    )
