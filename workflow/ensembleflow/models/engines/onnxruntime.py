"""ONNX Runtime: computes the graph that was converted from the exported function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError, EngineError
from ensembleflow.models.engines.loaded import LoadedEngine
from ensembleflow.models.engines.prepare import ONNX_FILE

__all__ = ["load", "start"]

# Ten bits of mantissa would change the third digit; and no search for the fastest kernel for each new batch size.
_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})


class _OnnxRuntimeModel(LoadedEngine):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def answer(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self._session.run(None, {self._input: images})[0]


def load(onnxruntime: Any, exported: Path, threads: int, *, gpu: bool) -> LoadedEngine:
    """Load `model.onnx` of a member's folder."""
    path = exported / ONNX_FILE
    if not path.is_file():
        raise ArtefactError(
            "a member has no ONNX file",
            where=path,
            expected="the file that ensembleflow.models.engines.prepare_members makes",
            hint="make the member's folder again with the engine onnxruntime, or choose another engine",
        )
    if gpu and _CUDA[0] not in onnxruntime.get_available_providers():
        raise EngineError(
            "the engine onnxruntime, as installed, cannot compute on a GPU",
            found=", ".join(onnxruntime.get_available_providers()),
            expected=_CUDA[0],
            hint="pip install onnxruntime-gpu in place of onnxruntime",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Other processes share the cores: a thread that has nothing to do must sleep.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    providers: list[Any] = [*([_CUDA] if gpu else []), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its classes share no base of their own
        found = " ".join(str(error).split())[:300]
        raise ArtefactError("an ONNX file cannot be read", where=path, found=found, expected="an ONNX model") from error
    if gpu and _CUDA[0] not in session.get_providers():
        raise EngineError("the engine onnxruntime found no GPU that it can use", where=path)
    return _OnnxRuntimeModel(session)


def start(onnxruntime: Any, threads: int, *, gpu: bool) -> None:
    """Nothing is to be started: threads, and a GPU's context, are each model's own."""
