"""When a process was started."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

import psutil

__all__ = ["process_started_at", "started_after_boot"]


@cache
def process_started_at() -> float:
    """When this process was started, Unix seconds, exact to a clock tick (10 ms) and the same at each call.

    Linux counts a process's start from boot, and gives the time of boot in whole seconds only. With that (which is
    what `psutil.Process.create_time` does) a process seems up to a second older than it is, so that a job would seem
    to begin before the one before it on its device had ended.
    """
    if not psutil.LINUX:
        return float(psutil.Process().create_time())
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started_after_boot(os.getpid()))


def started_after_boot(process_id: int) -> float:
    """Seconds from the machine's boot to a process's start: with the process's id, which process it is.

    On Linux, setting the clock does not change it.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    if not psutil.LINUX:
        return float(psutil.Process(process_id).create_time()) - psutil.boot_time()
    try:
        after_the_name = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process_id) from None
    return int(after_the_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
