"""The memory that a model takes, as a cost: each model is measured in a process of its own."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.child_process import ChildEndedError, ChildProcess
from ensembleflow.errors import LibraryError
from ensembleflow.library import peak_memory_process
from ensembleflow.models.engines import DEFAULT_ENGINE

__all__ = ["measure_peak_memory"]

logger = logging.getLogger("ensembleflow.library")


def measure_peak_memory(
    exported: Sequence[str | Path],
    parameter_bytes: Sequence[int],
    images: npt.NDArray[Any],
    *,
    engine: str = DEFAULT_ENGINE,
    threads: int,
    use_gpu: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> list[int] | None:
    """Peak memory of a process that loads one exported model and predicts one batch, over what it had before.

    What it had before is the engine, imported and started. So the sum over an ensemble's members is what they need
    beyond one started engine each, as they run: each in its own process. On a CPU that is resident memory without
    the pages of files, which processes share; on a GPU the memory of the device as NVML tells it, so nothing else may
    use the device meanwhile.

    Args:
        exported: the folders of the exported functions, with what the engine reads besides.
        parameter_bytes: the size of each one's weights.
        images: the batch, (images, ...).
        engine: what computes the models.
        threads: CPU threads that one operation may use.
        use_gpu: measure the GPU's memory instead of the machine's.
        meanwhile: called while the process works: whatever takes long, and takes nothing of the GPU.

    Returns:
        Bytes, one number per model, at least those of its weights and the batch; None where the system tells nothing.

    Raises:
        LibraryError: a model cannot be loaded or cannot predict the batch.
    """
    variables = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    # NumPy's threads: a process with threads must not be forked.
    environment = {**variables, "OPENBLAS_NUM_THREADS": "1"}
    measured: list[int] = []
    # One process for all forks of TensorFlow, one for each model of another engine.
    all_models = list(range(len(exported)))
    processes = [all_models] if engine == DEFAULT_ENGINE else [[place] for place in all_models]
    with tempfile.TemporaryDirectory() as folder:
        images_npy = Path(folder, "images.npy")
        np.save(images_npy, images, allow_pickle=False)
        for places in processes:
            settings = {
                "engine": engine,
                "exported": [str(Path(exported[place]).resolve()) for place in places],
                "parameter_bytes": [int(parameter_bytes[place]) for place in places],
                "images": str(images_npy),
                "threads": threads,
                "use_gpu": use_gpu,
            }
            with ChildProcess(peak_memory_process.__file__, settings, environment=environment) as child:
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                answers = child.answers()
                for place in places:
                    try:
                        answer = next(answers)
                    except ChildEndedError as error:
                        raise _cannot_measure(exported[place], str(error)) from None
                    if "failed" in answer:
                        raise _cannot_measure(exported[place], answer["failed"])
                    if answer["peak_memory_bytes"] is None:
                        return None
                    measured.append(answer["peak_memory_bytes"])
                    if len(measured) % 10 == 0 or len(measured) == len(exported):
                        progress = ("peak memory of kept models: %d/%d measured", len(measured), len(exported))
                        logger.info(*progress, extra={"progress": True})
    return measured


def _cannot_measure(model: str | Path, reason: str) -> LibraryError:
    return LibraryError(
        "a model's memory cannot be measured",
        where=model,
        found=reason,
        hint="if memory is short, lower library.cost.batch_size or raise resources.library.mem_mb",
    )
