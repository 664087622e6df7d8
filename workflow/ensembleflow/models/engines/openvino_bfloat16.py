"""OpenVINO in bfloat16: faster on processors that have instructions for it, and less precise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import EngineError
from ensembleflow.models.engines import openvino as float32
from ensembleflow.models.engines.loaded import LoadedEngine

__all__ = ["load", "start"]

start = float32.start


class _PairsOrMore(LoadedEngine):
    """Computes a single image as a pair: alone, OpenVINO 2026.4 gives some networks' answers entirely wrong."""

    def __init__(self, model: LoadedEngine) -> None:
        self._model = model

    def answer(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if len(images) == 1:
            return self._model.answer(np.repeat(images, 2, axis=0))[:1]
        return self._model.answer(images)


def load(openvino: Any, exported: Path, threads: int, *, gpu: bool) -> LoadedEngine:
    """Compile an exported function for the CPU, in bfloat16, for batches of any size.

    Raises:
        EngineError: this processor has no bfloat16, which OpenVINO would answer with float32, or a GPU is asked for.
    """
    can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in can:
        raise EngineError(
            "this processor does not compute in bfloat16",
            found=", ".join(can),
            expected="BF16 among what OpenVINO finds it capable of",
            hint="choose the engine openvino",
        )
    return _PairsOrMore(float32.load(openvino, exported, threads, gpu=gpu, precision="bf16"))
