"""A Snakemake to be killed (`kill -9`), and the lock that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from support.clone import Clone


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


class Started:
    """A context manager of a running Snakemake and, once it is killed, its orphans; on leaving all of them end."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._log = open(folder / "killed.log", "w+", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,
        )
        self.orphans: list[psutil.Process] = []

    def __enter__(self) -> Self:
        return self

    def wait_for(self, sign: Callable[[], bool]) -> None:
        """Wait until there is a sign of it being where it should be killed."""
        deadline = time.monotonic() + 120
        while not sign():
            assert self._process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill Snakemake, and nothing else."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self.orphans = [child for child in children if child.is_running()]

    def press_ctrl_c(self) -> str:
        """Send the signal to all processes, as a terminal does; what was printed, once all have ended."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(60)
        self._log.seek(0)
        return self._log.read()

    def __exit__(self, *exception: object) -> None:
        with suppress(psutil.NoSuchProcess):
            self.orphans += psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for orphan in self.orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
        self._log.close()


def locks(clone: Clone) -> list[Path]:
    return list((clone.folder / ".snakemake/locks").glob("*"))


def unlock(clone: Clone) -> str:
    """The first thing that `make run` does."""
    command = [sys.executable, "workflow/unlock.py"]
    return subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=True).stderr
