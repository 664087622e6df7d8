"""Telling when a measurement is disturbed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import psutil

__all__ = ["BUSY_PERCENT", "warn_of_other_work"]

BUSY_PERCENT = 30
"""Other processes' use of a core above which what is measured there counts as disturbed."""

_CHECK_SECONDS = 0.3

logger = logging.getLogger("ensembleflow")


def warn_of_other_work(core_ids: Iterable[int]) -> float:
    """Warn when other processes use these cores while this one waits: speeds measured there would be too low.

    Returns:
        How much of the busiest of them others use, in percent; above `BUSY_PERCENT` is warned of.
    """
    busy = psutil.cpu_percent(_CHECK_SECONDS, percpu=True)
    own = [core for core in sorted(set(core_ids)) if core < len(busy)]
    disturbed = [core for core in own if busy[core] > BUSY_PERCENT]
    if disturbed:
        logger.warning(
            "other processes use this job's cores (%s): the speeds measured will be too low and noisy",
            ", ".join(f"core {core} {busy[core]:.0f} %" for core in disturbed),
        )
    return max((busy[core] for core in own), default=0.0)
