"""What a command that takes longer does, told on the terminal while it does it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["progress_on_terminal"]


@contextmanager
def progress_on_terminal() -> Iterator[None]:
    """Print the package's log records that tell progress, and its warnings, on standard error."""
    logger = logging.getLogger("ensembleflow")
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or getattr(record, "progress", False))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
