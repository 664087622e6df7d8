"""The process of one replica of a member: pinned to its device's cores, it answers with its own probabilities.

Run as a file by `worker.Worker`, not as a module of its package: importing the package's other modules would only
delay each start. Messages are tuples. Orders: `("start", settings)`, `("configure", core_ids,
batch_size)`, `("predict", slot, start, stop)`. Answers: `("ready", peak_memory_mb)`, `("done", seconds)`,
`("failed", reason)`. The process ends when its parent does, or after a failure: then its memory is given back for
sure.
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


def main() -> int:
    """Obey the orders that come over the file descriptor given as the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(os, "SCHED_BATCH"):
        # Where the parent shares this core, each order would else take the core from it before the next is given.
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with Connection(int(sys.argv[1])) as control:
        try:
            _, settings = control.recv()
            _obey(control, settings)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return 0  # the parent is gone
        except Exception as error:  # whatever it is, the parent reports it as this member's failure
            try:
                control.send(("failed", error_text(error)))
            except OSError:
                return 0
            return 1
    return 0


def _obey(control: Connection, settings: dict[str, Any]) -> None:
    batch_size: int = settings["batch_size"]
    n_slots, n_images, *image_shape = settings["images_shape"]
    n_classes: int = settings["n_classes"]
    model = load_pinned(settings["engine"], settings["exported"], settings["core_ids"], gpu=settings["gpu"])
    images = _attach(settings["images_fd"], (n_slots, n_images, *image_shape), np.uint8)
    probabilities = _attach(settings["probabilities_fd"], (n_slots, n_images, n_classes), np.float32)

    def warm_up() -> None:
        # Tracing and the choice of kernels for this batch size must not fall into the first request.
        answer = model.predict(np.zeros((batch_size, *image_shape), np.uint8), batch_size)
        if answer.shape != (batch_size, n_classes):
            raise ValueError(f"the model answers with shape {answer.shape[1:]}, the ensemble has {n_classes} classes")

    warm_up()
    warm = {batch_size}
    control.send(("ready", peak_memory_mb()))
    while True:
        order, *values = control.recv()
        if order == "configure":
            core_ids, batch_size = values
            pin_to_cores(core_ids)
            if batch_size not in warm:
                warm_up()
                warm.add(batch_size)
            control.send(("ready", peak_memory_mb()))
        elif order == "predict":
            slot, start, stop = values
            started_at = time.perf_counter()
            model.predict(images[slot, start:stop], batch_size, probabilities[slot, start:stop])
            control.send(("done", time.perf_counter() - started_at))


def _attach(fd: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=mmap.mmap(fd, 0))


if __name__ == "__main__":
    sys.exit(main())
