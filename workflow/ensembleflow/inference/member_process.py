"""Starting the process of one member, and finding out why it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from ensembleflow.child_process import child_environment, describe_end

__all__ = ["MemberProcess", "reason_of_death", "spawn_process"]

_SECONDS_TO_END = 5.0


class MemberProcess(Protocol):
    """What is used of a member's process, however it was started: see `subprocess.Popen`."""

    pid: int

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status."""


def spawn_process(
    script: Path, fds: Sequence[int], output: IO[bytes], *, gpu: str | None = None, forks: bool = False
) -> subprocess.Popen[bytes]:
    """Start a Python file of this package as a process of its own, which sees at most one GPU.

    Not multiprocessing's spawn: that runs the parent's main script again in the child, and a Snakemake script would
    then start its rule a second time.

    Args:
        script: the file.
        fds: file descriptors that it inherits, under their numbers, which are its arguments.
        output: the open file that takes what it prints.
        gpu: the GPU's UUID or number; None hides all GPUs.
        forks: it will be forked, so NumPy must not start threads when it is imported.
    """
    environment = child_environment(
        CUDA_VISIBLE_DEVICES="-1" if gpu is None else gpu,
        CUDA_DEVICE_ORDER="PCI_BUS_ID",  # the order of nvidia-smi, NVML and Slurm
        **({"OPENBLAS_NUM_THREADS": "1"} if forks else {}),
    )
    # Blocked until the child ignores it: Ctrl-C during its start would print a traceback.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-P", script, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=fds,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def reason_of_death(process: MemberProcess, output: IO[bytes]) -> str:
    """Why a process ended by itself, from its exit status and its last words; waits for its end, but not for ever."""
    try:
        return describe_end(process.wait(_SECONDS_TO_END), output)
    except subprocess.TimeoutExpired:
        return "its process hung at its end"
