"""The memory that a model takes, as a cost: each model is measured in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import LibraryError
from ensembleflow.io import child_environment
from ensembleflow.library import peak_memory_process

__all__ = ["measure_peak_memory"]

logger = logging.getLogger("ensembleflow.library")


def measure_peak_memory(
    exported: Sequence[str | Path],
    images: npt.NDArray[np.uint8],
    *,
    threads: int,
    use_gpu: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> list[int] | None:
    """Peak memory of a process that loads one exported model and predicts one batch, over what it had before.

    What it had before is TensorFlow, imported and started. So the sum over an ensemble's members is what they need
    beyond one started TensorFlow each, as they run: each in its own process. On a CPU that is resident memory without
    the pages of files, which processes share; on a GPU the memory of the device as NVML tells it, so nothing else may
    use the device meanwhile.

    Args:
        exported: the folders of the exported functions.
        images: the batch, uint8 (images, height, width, channels).
        threads: CPU threads that one operation may use.
        use_gpu: measure the GPU's memory instead of the machine's.
        meanwhile: called while the process works: whatever takes long, and takes nothing of the GPU.

    Returns:
        Bytes, one number a model, at least those of its weights and the batch; None where the system tells nothing.

    Raises:
        LibraryError: a model cannot be loaded or cannot predict the batch.
    """
    variables = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    # NumPy's threads: a process with threads must not be forked.
    environment = child_environment(**variables, OPENBLAS_NUM_THREADS="1")
    measured: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = {"exported": [str(Path(each).resolve()) for each in exported]}
        settings_json = json.dumps({**settings, "threads": threads, "use_gpu": use_gpu})
        Path(folder, "settings.json").write_text(settings_json, encoding="utf-8")
        np.save(Path(folder, "images.npy"), images, allow_pickle=False)
        command = [sys.executable, "-P", peak_memory_process.__file__, folder]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            try:
                if meanwhile is not None:
                    meanwhile()
                for model, line in zip(exported, process.stdout or (), strict=False):
                    answer = json.loads(line)
                    if "failed" in answer:
                        raise _cannot_measure(model, answer["failed"])
                    if answer["peak_memory_bytes"] is None:
                        return None
                    measured.append(answer["peak_memory_bytes"])
                    if len(measured) % 10 == 0 or len(measured) == len(exported):
                        told = ("peak memory of kept models: %d/%d measured", len(measured), len(exported))
                        logger.info(*told, extra={"progress": True})
                if len(measured) < len(exported):
                    raise _cannot_measure(exported[len(measured)], f"the process ended with status {process.wait()}")
            finally:
                process.kill()
    return measured


def _cannot_measure(model: str | Path, reason: str) -> LibraryError:
    return LibraryError(
        "a model's memory cannot be measured",
        where=model,
        found=reason,
        hint="if memory is short, lower library.cost.batch_size or raise resources.library.mem_mb",
    )
