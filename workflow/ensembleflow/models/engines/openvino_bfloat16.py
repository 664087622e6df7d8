"""OpenVINO in bfloat16: faster on processors that have instructions for it, and less precise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensembleflow.errors import EngineError
from ensembleflow.models.engines import openvino as float32
from ensembleflow.models.engines.loaded import LoadedEngine

__all__ = ["load"]


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
    return float32.load(openvino, exported, threads, gpu=gpu, precision="bf16")
