"""Being asked to stop: by SIGTERM (scancel, a time limit's end), SIGUSR1 (a warning before it) or SIGINT (Ctrl-C)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals:
    """A context manager in which these signals end the process through its `finally` blocks, without a traceback.

    What has been trained is first written whole: inside `postponed` the end waits until the block is left.
    """

    def __init__(self) -> None:
        self._postponed = False
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Let a signal end the process only when the block is left."""
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False
        if self._received is not None:
            sys.exit(128 + self._received)

    def _stop(self, number: int, frame: object) -> None:
        # At a time limit Slurm sends SIGTERM twice within milliseconds, and after Ctrl-C Snakemake sends one more: the
        # second must not disturb the ending.
        first, self._received = self._received is None, number
        if first and not self._postponed:
            sys.exit(128 + number)
