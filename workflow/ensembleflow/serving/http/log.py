"""The server's log: one JSON object a line."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

import orjson

from ensembleflow.errors import StorageError

__all__ = ["json_log"]

_MAX_WAITING_LINES = 10_000
_PAUSE_SECONDS = 0.1
_LOGGERS = ("ensembleflow", "uvicorn", "asyncio")


@contextmanager
def json_log(path: Path | None) -> Iterator[None]:
    """Write the logs of the package and of the HTTP server to a file, or to the standard error.

    A thread writes them, so that a slow disk or terminal holds up no request; lines that would have to wait
    behind 10,000 others are lost. A file that was moved away (by logrotate) is opened anew.

    Args:
        path: a file to append to; None for the standard error.

    Raises:
        StorageError: the file cannot be opened.
    """
    try:
        handler = WatchedFileHandler(path, encoding="utf-8") if path else logging.StreamHandler(sys.stderr)
    except OSError as error:
        raise StorageError("the log cannot be written", where=path, found=error.strerror) from None
    writer = _Writer(handler)
    writer.setFormatter(_JsonLine())
    # No line holds any of it; that they may be turned off is in the logging module's guide, under Optimization.
    unused = {name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")}
    for name in unused:
        setattr(logging, name, None)
    levels = {}
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        levels[name] = logger.level
        logger.addHandler(writer)
        logger.setLevel(logging.INFO if name == "ensembleflow" else logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(writer)
            logging.getLogger(name).setLevel(level)
        for name, value in unused.items():
            setattr(logging, name, value)
        writer.close()
        handler.close()


class _Writer(logging.Handler):
    """Keeps lines for a thread, which looks for them itself and writes all that there are as one piece.

    If each line woke it, the event loop would on a busy machine lose the processor with each; if it made the lines,
    it would keep the interpreter from the event loop for as long as that takes.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._waiting: deque[str] = deque()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if len(self._waiting) < _MAX_WAITING_LINES:
                self._waiting.append(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        super().close()

    def _write(self) -> None:
        ended = False
        while not ended:
            ended = self._ends.wait(_PAUSE_SECONDS)
            if lines := [self._waiting.popleft() for _ in range(len(self._waiting))]:
                with suppress(OSError):  # the file may be there again next time
                    self._handler.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))


class _JsonLine(logging.Formatter):
    """Time, level, event, and what `extra={"fields": {...}}` holds."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()
