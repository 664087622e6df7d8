"""How long one engine takes to predict some images with each of some models.

Run as a file by `engine_speed.engines_by_speed`, as a child of `child_process`. It has one answer: `{"seconds": …}`,
the sum over the models of each one's median time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ensembleflow.child_process import run_child
from ensembleflow.library.predict_seconds import predict_seconds
from ensembleflow.models.engines import check_engine, load_engine
from ensembleflow.models.engines.process import import_without_keras

_REPEATS = 3


def measure(settings: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Measure what the settings say."""
    arrays, batch_size = Path(settings["arrays"]), settings["batch_size"]
    images = np.load(arrays / "images.npy", allow_pickle=False)
    cached = arrays / "expected.npy"
    expected = np.load(cached, allow_pickle=False) if cached.exists() else None
    import_without_keras(settings["engine"])
    total = 0.0
    for place, member in enumerate(settings["members"]):
        loaded = load_engine(settings["engine"], Path(member), settings["threads"], gpu=settings["use_gpu"])
        if expected is not None:
            check_engine(loaded, images[: expected.shape[1]], expected[place], batch_size, settings["tolerance"])
        loaded.predict(images, batch_size)
        total += median(predict_seconds(loaded, images, batch_size) for _ in range(_REPEATS))
    answer({"seconds": total})


if __name__ == "__main__":
    sys.exit(run_child(measure))
