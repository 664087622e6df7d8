"""OpenVINO: reads the exported function and computes it with kernels made for this processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError, EngineError
from ensembleflow.models.engines.loaded import LoadedEngine

__all__ = ["load", "start"]


class _OpenVinoModel(LoadedEngine):
    def __init__(self, request: Any, tensor: Any) -> None:
        self._request = request
        self._tensor = tensor

    def answer(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        # It reads the caller's memory where that is contiguous, and for safety writable, as it cannot promise not to.
        shared = np.require(images, requirements=("C", "W"))
        self._request.set_input_tensor(self._tensor(shared, shared_memory=True))
        self._request.infer(share_outputs=True)
        return self._request.get_output_tensor().data


def load(openvino: Any, exported: Path, threads: int, *, gpu: bool, precision: str = "f32") -> LoadedEngine:
    """Compile an exported function for the CPU, in float32 or what OpenVINO calls `precision`, for batches of any size.

    Compiled for one size it would be 1 to 8 % faster at that size, but batches of other sizes would have to be padded
    or compiled for while a request waits; so each new size only costs a few milliseconds, once.
    """
    if gpu:
        raise EngineError(
            "the engine openvino computes on CPU cores only",
            hint="place the member on a set of cores, or choose another engine",
        )
    core = openvino.Core()
    try:
        model = core.read_model(exported)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        raise ArtefactError(
            "an exported model cannot be read by OpenVINO", where=exported, found=found, expected="a SavedModel"
        ) from error
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # by itself it takes bfloat16 where the processor has it
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # whoever loads it has bound the process
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        raise EngineError("OpenVINO cannot compile a model", where=exported, found=found) from error
    return _OpenVinoModel(compiled.create_infer_request(), openvino.Tensor)


def start(openvino: Any, threads: int, *, gpu: bool) -> None:
    """Load the plugin that computes on CPU cores; threads are each model's own."""
    openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
