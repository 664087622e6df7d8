"""What memory each exported model takes in a process of its own.

Run as a file by `peak_memory.measure_peak_memory`, as a child of `child_process`: its settings are the members'
folders, the sizes of their weights, the engine, the file of the batch to predict, the threads and whether to use the
GPU. It has one answer per model: `{"peak_memory_bytes": …}`, null where the system does not say, or
`{"failed": reason}`.

With TensorFlow each model has a process that is new to it: a fork of this one, which has imported TensorFlow but never
used it, so that no thread of it runs and no GPU is open. That costs a tenth of a second instead of an import; and
nothing is left over from a model before, whose freed memory the next one would use again unseen. Other engines are
imported in less than a second and may start threads by that: there this process is the only model's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.child_process import describe_end, run_child
from ensembleflow.errors import EnsembleflowError
from ensembleflow.models.engines import DEFAULT_ENGINE, load_engine, start_engine
from ensembleflow.models.engines.process import import_without_keras
from ensembleflow.models.gpu import gpu_memory_bytes


def measure(settings: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Measure what the settings say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    images = np.load(settings["images"], allow_pickle=False)
    import_without_keras(settings["engine"])
    models = zip(settings["exported"], settings["parameter_bytes"], strict=True)
    if settings["engine"] != DEFAULT_ENGINE:
        for exported, parameter_bytes in models:
            answer(_measured(exported, parameter_bytes, images, settings))
        return
    for exported, parameter_bytes in models:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                answer(_measured(exported, parameter_bytes, images, settings))
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0:
            answer({"failed": describe_end(status)})


def _measured(
    exported: str, parameter_bytes: int, images: npt.NDArray[Any], settings: dict[str, Any]
) -> dict[str, Any]:
    try:
        return {"peak_memory_bytes": _peak_memory_bytes(exported, parameter_bytes, images, settings)}
    except Exception as error:  # whatever it is, it is answered as this model's failure
        text = f"{error.what}: {error.found}" if isinstance(error, EnsembleflowError) else str(error)
        return {"failed": " ".join(text.split())[:300] or type(error).__name__}


def _peak_memory_bytes(
    exported: str, parameter_bytes: int, images: npt.NDArray[Any], settings: dict[str, Any]
) -> int | None:
    engine, use_gpu = settings["engine"], settings["use_gpu"]
    start_engine(engine, settings["threads"], gpu=use_gpu)
    before = gpu_memory_bytes() if use_gpu else _private_bytes("VmRSS")
    loaded = load_engine(engine, Path(exported), settings["threads"], gpu=use_gpu)
    loaded.predict(images, len(images))
    # TensorFlow gives nothing of a GPU's memory back, so that the last reading is the highest.
    peak = gpu_memory_bytes() if use_gpu else _private_bytes("VmHWM")
    if before is None or peak is None:
        return None
    # A small model may fit into memory that the process already had, and takes it from the others all the same.
    return max(peak - before, parameter_bytes + images.nbytes)


def _private_bytes(field: str) -> int | None:
    """Resident memory now (`VmRSS`) or at most (`VmHWM`), without the pages of files, which all members share.

    After a fork the most begins anew. What pages of files the peak was without are counted off too: they are few.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        kilobytes = {name: value.split()[0] for name, value in (line.split(":", 1) for line in lines) if value.strip()}
        return 1024 * (int(kilobytes[field]) - int(kilobytes["RssFile"]))
    except (OSError, KeyError):
        return None


if __name__ == "__main__":
    sys.exit(run_child(measure))
