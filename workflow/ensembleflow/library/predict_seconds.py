"""How long a loaded model takes for some images."""

from __future__ import annotations

import time
from typing import Any

import numpy.typing as npt

from ensembleflow.models.engines import LoadedEngine

__all__ = ["predict_seconds"]


def predict_seconds(loaded: LoadedEngine, images: npt.NDArray[Any], batch_size: int) -> float:
    """Seconds to predict all images, (images, ...), with `batch_size` of them per call."""
    started = time.perf_counter()
    loaded.predict(images, batch_size)
    return time.perf_counter() - started
