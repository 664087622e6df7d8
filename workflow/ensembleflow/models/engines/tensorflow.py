"""TensorFlow: the exported function itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensembleflow.models.engines.loaded import LoadedEngine
from ensembleflow.models.export import load_exported
from ensembleflow.models.runtime import configure_tensorflow

__all__ = ["load", "start"]


def load(_: Any, exported: Path, threads: int, *, gpu: bool) -> LoadedEngine:
    """Load an exported function and set TensorFlow up, for this whole process."""
    configure_tensorflow(threads, use_gpu=gpu)
    return load_exported(exported)


def start(tensorflow: Any, threads: int, *, gpu: bool) -> None:
    """Set TensorFlow up, for this whole process, and make its threads, and a GPU's context."""
    configure_tensorflow(threads, use_gpu=gpu)
    tensorflow.linalg.matmul(tensorflow.ones((8, 8)), tensorflow.ones((8, 8))).numpy()
