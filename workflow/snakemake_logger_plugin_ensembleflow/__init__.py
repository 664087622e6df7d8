"""Snakemake's progress as a person reads it (`snakemake --logger ensembleflow`, as `make run` does)."""

from __future__ import annotations

import logging
import sys
import time

from snakemake_interface_logger_plugins.base import LogHandlerBase

from snakemake_logger_plugin_ensembleflow.stages import StageProgress

__all__ = ["LogHandler"]


class LogHandler(LogHandlerBase):
    """Writes a line where a stage begins, goes on or is done, and all warnings and errors."""

    def __post_init__(self) -> None:
        self._stages = StageProgress(time.monotonic)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what a record means, if it means anything to a person."""
        try:
            for line in self._stages.lines(record):
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    @property
    def writes_to_stream(self) -> bool:
        """It replaces Snakemake's own."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """The whole log is in .snakemake/log as always."""
        return False

    @property
    def has_filter(self) -> bool:
        """It chooses itself."""
        return True

    @property
    def has_formatter(self) -> bool:
        """It words its lines itself."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """Counts of jobs are enough."""
        return False
