"""The process of one replica of a member: pinned to its device's cores, it answers with its own probabilities.

Run as a file by `worker.Worker`, not as a module of its package: importing the package's other modules would only
delay each start; or forked from `fork_server_process`. Messages are tuples. Orders: `("start", settings)`,
`("configure", core_ids, batch_size)`, `("predict", slot, start, stop)`. Answers: `("ready", peak_memory_mb)`,
`("done", seconds)`, `("failed", reason)`. The process ends when its parent does, or after a failure: then its memory is
given back for sure.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.models.engines.process import error_text, load_pinned, peak_memory_mb, pin_to_cores

# Sizes that batches of a few requests have, in images.
USUAL_BATCHES = (*range(1, 16), *range(16, 65, 8))


def main(control_fd: int, images_fd: int, probabilities_fd: int) -> int:
    """Obey the orders that come over `control_fd`; the others are of the memory shared with who orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(os, "SCHED_BATCH"):
        # Where the parent shares this core, each order would else take the core from it before the next is given.
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with Connection(control_fd) as control:
        try:
            _, settings = control.recv()
            obey(control, settings, images_fd, probabilities_fd)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return 0  # the parent is gone
        except Exception as error:  # whatever it is, the parent reports it as this member's failure
            try:
                control.send(("failed", error_text(error)))
            except OSError:
                return 0
            return 1
    return 0


def obey(control: Connection, settings: dict[str, Any], images_fd: int, probabilities_fd: int) -> None:
    """Load the member and do what is ordered.

    Raises:
        EOFError, BrokenPipeError, ConnectionResetError: whoever orders is gone.
    """
    batch_size: int = settings["batch_size"]
    n_slots, n_images, *image_shape = settings["images_shape"]
    n_classes: int = settings["n_classes"]
    model = load_pinned(settings["engine"], settings["exported"], settings["core_ids"], gpu=settings["gpu"])
    images = _attach(images_fd, (n_slots, n_images, *image_shape), settings["images_dtype"])
    probabilities = _attach(probabilities_fd, (n_slots, n_images, n_classes), np.float32)

    warm: set[int] = set()

    def warm_up(n_images: int) -> None:
        # Tracing and the choice of kernels for a batch size must not fall into the first request of that size.
        if n_images in warm:
            return
        answer = model.answer(np.zeros((n_images, *image_shape), images.dtype))
        if answer.shape != (n_images, n_classes):
            raise ValueError(f"the model answers with shape {answer.shape[1:]}, the ensemble has {n_classes} classes")
        warm.add(n_images)

    warm_up(batch_size)
    warm_until = time.monotonic() + settings["warm_up_seconds"]
    for n_images in USUAL_BATCHES:
        if n_images < batch_size and time.monotonic() < warm_until:
            warm_up(n_images)
    control.send(("ready", peak_memory_mb()))
    while True:
        order, *values = control.recv()
        if order == "configure":
            core_ids, batch_size = values
            pin_to_cores(core_ids)
            warm_up(batch_size)
            control.send(("ready", peak_memory_mb()))
        elif order == "predict":
            slot, start, stop = values
            started_at = time.perf_counter()
            model.predict(images[slot, start:stop], batch_size, probabilities[slot, start:stop])
            control.send(("done", time.perf_counter() - started_at))


def _attach(fd: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=mmap.mmap(fd, 0))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
