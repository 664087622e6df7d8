"""What training and predicting take, measured on three networks of a search's space."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution

from ensembleflow.child_process import ChildProcess
from ensembleflow.config import SearchConfig
from ensembleflow.first_config import network_times_process
from ensembleflow.first_config.machine import Machine
from ensembleflow.models.hyperparameters import Hyperparameters
from ensembleflow.models.network_size import network_size
from ensembleflow.search.space import distributions, hyperparameters_of

__all__ = ["MeasuredNetwork", "NetworkTimes", "measure_networks", "three_networks"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network's times, in seconds.

    Attributes:
        multiply_adds: of one image's prediction.
        build_seconds: building it and tracing its step.
        train_seconds: an image, augmented, in one epoch.
        statistics_seconds: an image, for batch normalisation's statistics, once an epoch.
        predict_seconds: an image.
    """

    multiply_adds: int
    build_seconds: float
    train_seconds: float
    statistics_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class NetworkTimes:
    """What was measured.

    Attributes:
        start_seconds: of a process until TensorFlow is ready.
        networks: at least one, by their multiply-adds.
    """

    start_seconds: float
    networks: tuple[MeasuredNetwork, ...]

    def of(self, what: str, multiply_adds: float) -> float:
        """A time by its name in `MeasuredNetwork`: linear between the networks, beyond them the nearest one's."""
        known = [each.multiply_adds for each in self.networks]
        return float(np.interp(multiply_adds, known, [getattr(each, what) for each in self.networks]))


def measure_networks(
    search: SearchConfig, pixels: npt.NDArray[np.uint8], n_classes: int, machine: Machine
) -> NetworkTimes:
    """Train the lowest, the middle and the highest network of a space for a moment, in a process of its own.

    Args:
        search: the space, of the family `resnet`.
        pixels: some real images, uint8 (n, height, width, 3).
        n_classes: of the data.
        machine: threads, and whether a GPU may be used.

    Raises:
        ChildEndedError: the process was killed, as for its memory.
    """
    _LOG.info("measuring three networks of the space", extra={"progress": True})
    points = three_networks(search)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.npy")
        np.save(file, pixels, allow_pickle=False)
        settings = {
            "images": str(file),
            "n_classes": n_classes,
            "networks": [point.to_dict() for point in points],
            "threads": machine.threads,
            "use_gpu": machine.gpus > 0,
            "averaged": search.average == "power",
        }
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
        with ChildProcess(network_times_process.__file__, settings, environment=environment, quoted=True) as child:
            start, *measured = child.answers()
    shape: tuple[int, int, int] = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    networks = [
        MeasuredNetwork(network_size(point, shape, n_classes).multiply_adds, **times)
        for point, times in zip(points, measured, strict=True)
    ]
    return NetworkTimes(start["start_seconds"], tuple(sorted(networks, key=lambda each: each.multiply_adds)))


def three_networks(search: SearchConfig) -> list[Hyperparameters]:
    """The points of a space with all values at their lowest, in the middle, and at their highest.

    Each trains with the middle batch size, so that their times can be compared.
    """
    space = distributions(search)
    points = []
    for share in (0.0, 0.5, 1.0):
        values = {name: _value(each, 0.5 if name == "batch_size" else share) for name, each in space.items()}
        point = hyperparameters_of(values, search)
        assert isinstance(point, Hyperparameters)
        points.append(point)
    return points


def _value(distribution: BaseDistribution, share: float) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        choices: Sequence[Any] = distribution.choices
        return choices[min(int(share * len(choices)), len(choices) - 1)]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    value = low + share * (high - low)
    return round(value) if isinstance(low, int) else value
