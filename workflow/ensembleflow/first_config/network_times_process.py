"""The process that times networks: run as a file by `network_times.measure_networks`, as a child of `child_process`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from ensembleflow.child_process import end_with_parent, run_child

__all__ = ["time_networks"]

# What is timed, each time anew and the fastest counts, since other programs only make it slower: so many updates, or as
# many as take about so many seconds, two at least.
_ROUNDS = 3
_MOST_STEPS = 10
_SECONDS = 0.5
_MOST_PREDICTED = 256


def time_networks(settings: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Time the start of this process, then each network.

    Args:
        settings: `images`, a file of uint8 (n, height, width, channels); `n_classes`; `networks`, hyperparameters;
            `threads`, `use_gpu`, `averaged`.
        answer: called with `start_seconds`, then for each network with the times of `MeasuredNetwork`.
    """
    end_with_parent()
    from ensembleflow.models import Hyperparameters, configure_tensorflow

    configure_tensorflow(settings["threads"], use_gpu=settings["use_gpu"], training=True)
    answer({"start_seconds": time.time() - psutil.Process().create_time()})
    images = np.load(settings["images"], allow_pickle=False)
    for values in settings["networks"]:
        answer(_times(Hyperparameters.from_dict(values), images, settings))


def _times(hyperparameters: Any, images: np.ndarray, settings: dict[str, Any]) -> dict[str, float]:
    import keras

    from ensembleflow.models import BatchStatistics, Trainer, build_resnet, model_function, prediction_batch_size

    started = time.perf_counter()
    keras.backend.clear_session()
    shape = images.shape[1:]
    model = build_resnet(hyperparameters, shape, settings["n_classes"])
    batch_size = prediction_batch_size(shape)
    shown = _repeated(images, min(_MOST_PREDICTED, batch_size))
    statistics = BatchStatistics(model, shown, batch_size)
    trainer = Trainer(
        model,
        hyperparameters,
        1000,
        averaged=settings["averaged"],
        batch_statistics=statistics,
        threads=settings["threads"],
    )
    function = model_function(model)
    build_seconds = time.perf_counter() - started

    def train(n_steps: int) -> float:
        chosen = _repeated(images, n_steps * hyperparameters.batch_size)
        labels = np.arange(len(chosen), dtype=np.int64) % settings["n_classes"]
        begun = time.perf_counter()
        trainer.train_epoch(chosen, labels, (0, 0, 0))
        return time.perf_counter() - begun

    def evaluate() -> tuple[float, float]:
        begun = time.perf_counter()
        with trainer.evaluated_weights():
            between = time.perf_counter()
            function.predict(shown, batch_size)
            return between - begun, time.perf_counter() - between

    # What is done once only, such as choosing kernels, is no part of a step.
    warm, first_evaluation = train(1), sum(evaluate())
    n_steps = int(np.clip(_SECONDS / max(warm, 1e-3), 2, _MOST_STEPS))
    train_seconds = min(train(n_steps) for _ in range(_ROUNDS)) / (n_steps * hyperparameters.batch_size)
    statistics_seconds, predict_seconds = map(min, zip(*(evaluate() for _ in range(_ROUNDS)), strict=True))
    return {
        "build_seconds": build_seconds + warm + first_evaluation,
        "train_seconds": train_seconds,
        "statistics_seconds": statistics_seconds / len(shown),
        "predict_seconds": predict_seconds / len(shown),
    }


def _repeated(images: np.ndarray, n: int) -> np.ndarray:
    """So many images, the same ones again where there are fewer."""
    return images[np.arange(n) % len(images)]


if __name__ == "__main__":
    sys.exit(run_child(time_networks))
