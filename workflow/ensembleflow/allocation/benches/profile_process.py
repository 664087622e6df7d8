"""The process that measures one member on one device with one engine.

Run as a file by `profile.profile_members`, as `worker_process` is by `worker`, with file descriptors as its arguments;
or forked from `fork_server_process`. It is sent the settings and answers `("loaded",)`, then
`("measured", images_per_second, peak_memory_mb)` for each batch size in ascending order, or `("failed", reason)` and
ends. It ends when its parent does.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np

from ensembleflow.models import gpu_memory_bytes
from ensembleflow.models.engines import LoadedEngine, check_engine
from ensembleflow.models.engines.process import error_text, load_pinned, peak_memory_mb


def main(control_fd: int, images_fd: int) -> int:
    """Measure what the settings say, which come over `control_fd`, with the images in `images_fd`'s shared memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with Connection(control_fd) as control:
        try:
            settings = control.recv()
            threading.Thread(target=_end_with_parent, args=(control,), daemon=True).start()
            _measure(control, settings, images_fd)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return 0  # the parent is gone
        except Exception as error:  # whatever it is, the parent reports it as this member's failure
            with suppress(OSError):
                control.send(("failed", error_text(error)))
            return 1
    return 0


def _measure(control: Connection, settings: dict[str, Any], images_fd: int) -> None:
    peak_mb = _device_memory(settings["gpu"])
    loaded = load_pinned(settings["engine"], settings["exported"], settings["core_ids"], gpu=settings["gpu"])
    shape, dtype = settings["images_shape"], settings["images_dtype"]
    images: np.ndarray = np.ndarray(shape, dtype, buffer=mmap.mmap(images_fd, 0))
    control.send(("loaded",))
    expected, batch_sizes = settings["expected"], settings["batch_sizes"]
    for batch_size in batch_sizes:
        batch = images[:batch_size]
        out = loaded.predict(batch, batch_size)  # what the first call prepares is not measured
        if expected is not None and batch_size == batch_sizes[0]:
            check_engine(loaded, images[: len(expected)], expected, batch_size, settings["tolerance"])
        seconds = _call_seconds(loaded, batch, out, settings["min_calls"], settings["seconds"])
        control.send(("measured", batch_size / median(seconds), peak_mb()))


def _call_seconds(
    loaded: LoadedEngine, batch: np.ndarray, out: np.ndarray, min_calls: int, min_seconds: float
) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < min_calls or sum(seconds) < min_seconds:
        started_at = time.perf_counter()
        loaded.predict(batch, len(batch), out)
        seconds.append(time.perf_counter() - started_at)
    return seconds


def _device_memory(gpu: bool) -> Callable[[], float]:
    """A function that returns the most memory that this process has had of its device, in MB."""
    if not gpu:
        return peak_memory_mb
    # NVML reports what all processes have together, and no engine gives a GPU's memory back before it ends: what was
    # added since the start is this process's, and its peak.
    before = gpu_memory_bytes()

    def added_mb() -> float:
        now = gpu_memory_bytes()
        if before is None or now is None:
            raise RuntimeError("NVML does not report the GPU's memory")
        return (now - before) / 2**20

    return added_mb


def _end_with_parent(control: Connection) -> None:
    """End this process when the other end of the pipe is closed, even if the engine hangs."""
    with suppress(EOFError, OSError):
        control.recv()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
