"""Processes of our own: started without running the parent's script again, bound to cores, their memory known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import ensembleflow

__all__ = ["peak_memory_mb", "pin_to_cores", "spawn_process"]


def spawn_process(
    file: str | Path,
    arguments: Sequence[str],
    passed_fds: Sequence[int],
    output: IO[bytes],
    *,
    gpu: str | None = None,
) -> subprocess.Popen[bytes]:
    """Run a file of the package as a program of its own, without importing its package first.

    Not multiprocessing's spawn: that runs the parent's main script again in the child, and a Snakemake script would
    then start its rule a second time.

    Args:
        file: the module's file.
        arguments: its command line.
        passed_fds: file descriptors that it inherits.
        output: where its standard output and error go.
        gpu: the GPU that it sees, for `CUDA_VISIBLE_DEVICES`; None for none.
    """
    path = [str(Path(ensembleflow.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi
        "CUDA_VISIBLE_DEVICES": "-1" if gpu is None else gpu,
    }
    # Blocked until the child ignores it: Ctrl-C during its start would print a traceback.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-P", str(file), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(passed_fds),
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def pin_to_cores(core_ids: Iterable[int]) -> None:
    """Bind every thread of this process to `core_ids`; no-op where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = set(core_ids)
    done: set[int] = set()
    while threads := {int(entry.name) for entry in Path("/proc/self/task").iterdir()} - done:
        for thread in threads:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(thread, cores)
        done |= threads  # a thread born meanwhile is found in the next round, or was born bound


def peak_memory_mb() -> float:
    """The most resident memory that this process has had, in MB."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            # Not getrusage's: that one survives exec, so it starts at the parent's peak.
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)
