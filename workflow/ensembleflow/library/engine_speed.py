"""Which of the installed engines computes a library's models fastest, each tried in a process of its own."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.child_process import ChildEndedError, ChildProcess
from ensembleflow.errors import EnsembleflowError
from ensembleflow.library import engine_speed_process
from ensembleflow.models.engines import (
    CPU_ONLY_ENGINES,
    DEFAULT_ENGINE,
    FLOAT32_ENGINES,
    installed_engines,
    prepare_members,
)

__all__ = ["engines_by_speed"]

logger = logging.getLogger("ensembleflow.library")

# The engines are tried on so many models, from the smallest to the largest.
_TRIED_MODELS = 3


def engines_by_speed(
    folders: Sequence[Path],
    parameter_bytes: Sequence[int],
    images: npt.NDArray[Any],
    expected: Sequence[npt.NDArray[np.floating]] | None,
    *,
    batch_size: int,
    threads: int,
    use_gpu: bool = False,
    tolerance: float,
) -> list[str]:
    """The installed float32 engines that compute the models, fastest first.

    Each predicts `images` with the smallest, the median and the largest model, and their median times are summed. An
    engine that cannot load one of these, or answers otherwise than the cache, is left out, which is logged.

    Args:
        folders: the exported functions.
        parameter_bytes: the size of each one's weights.
        images: (images, ...), as the dataset has them.
        expected: of each model the cached answers to the first of `images`, (at most images, classes); None checks
            nothing.
        batch_size: images per call.
        threads: CPU threads.
        use_gpu: compute on the GPU.
        tolerance: by how much an answer may differ from the cached one.

    Returns:
        Names of engines, at least one: where all fail, TensorFlow, whose own error then tells why.
    """
    engines = [engine for engine in installed_engines() if engine in FLOAT32_ENGINES]
    engines = [engine for engine in engines if not (use_gpu and engine in CPU_ONLY_ENGINES)]
    if len(engines) == 1:
        return engines
    by_size = sorted(range(len(folders)), key=lambda place: parameter_bytes[place])
    tried = sorted({by_size[round(share * (len(by_size) - 1))] for share in np.linspace(0, 1, _TRIED_MODELS)})
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="ensembleflow-engines-") as folder:
        np.save(Path(folder, "images.npy"), images, allow_pickle=False)
        if expected is not None:
            np.save(Path(folder, "expected.npy"), np.stack([expected[place] for place in tried]), allow_pickle=False)
        for engine in engines:
            settings = {
                "engine": engine,
                "arrays": folder,
                "threads": threads,
                "use_gpu": use_gpu,
                "batch_size": batch_size,
                "tolerance": tolerance,
            }
            try:
                members = prepare_members([folders[place] for place in tried], Path(folder, engine), [engine])
                seconds[engine] = _seconds({**settings, "members": [str(member.resolve()) for member in members]})
            except (EnsembleflowError, ChildEndedError) as error:
                reason = " ".join(str(error).split())
                logger.warning("library.engine: %s is left out: %s", engine, reason)
    ranked = sorted(seconds, key=lambda engine: seconds[engine]) or [DEFAULT_ENGINE]
    told = ", ".join(f"{engine} {len(images) * len(tried) / seconds[engine]:,.0f} images/s" for engine in seconds)
    logger.info("engines tried on %d models: %s", len(tried), told or "none works", extra={"progress": True})
    return ranked


def _seconds(settings: Mapping[str, object]) -> float:
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        **({} if settings["use_gpu"] else {"CUDA_VISIBLE_DEVICES": "-1"}),
    }
    with ChildProcess(engine_speed_process.__file__, settings, environment=environment, quoted=True) as child:
        return float(next(child.answers())["seconds"])
