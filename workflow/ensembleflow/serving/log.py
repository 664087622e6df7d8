"""The server's log: one JSON object a line."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path

import orjson

from ensembleflow.errors import StorageError

__all__ = ["json_log"]

_MAX_WAITING_LINES = 10_000
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
    handler.setFormatter(_JsonLine())
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_MAX_WAITING_LINES)
    listener = QueueListener(lines, handler)
    entrance = _Entrance(lines)
    levels = {}
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        levels[name] = logger.level
        logger.addHandler(entrance)
        logger.setLevel(logging.INFO if name == "ensembleflow" else logging.WARNING)
    listener.start()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(entrance)
            logging.getLogger(name).setLevel(level)
        listener.stop()
        handler.close()


class _Entrance(QueueHandler):
    """Puts records into the queue as they are: the formatter of the other end makes text of them."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


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
