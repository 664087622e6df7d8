"""Telling when a measurement is disturbed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import psutil

__all__ = ["warn_of_other_work"]

_CHECK_SECONDS, _BUSY_PERCENT = 0.3, 30

logger = logging.getLogger("ensembleflow")


def warn_of_other_work(core_ids: Iterable[int]) -> None:
    """Warn when other processes use these cores while this one waits: speeds measured there would be too low."""
    busy = psutil.cpu_percent(_CHECK_SECONDS, percpu=True)
    disturbed = [core for core in sorted(set(core_ids)) if core < len(busy) and busy[core] > _BUSY_PERCENT]
    if disturbed:
        logger.warning(
            "other processes use this job's cores (%s): the speeds measured will be too low and noisy",
            ", ".join(f"core {core} {busy[core]:.0f} %" for core in disturbed),
        )
