"""The mean and standard deviation of float samples' channels, by which networks standardise them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Standardisation", "standardisation_of"]


@dataclass(frozen=True)
class Standardisation:
    """What float samples are standardised by: each place on their last axis is a channel.

    Attributes:
        mean: of the training samples, float64 (channels,).
        deviation: their standard deviation, float64 (channels,), above 0; 1 for a channel in which all are equal.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def apply(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (n, ..., channels) of mean 0 and standard deviation 1 in each channel."""
        return ((samples - self.mean.astype(np.float32)) / self.deviation.astype(np.float32)).astype(np.float32)


def standardisation_of(samples: Any, samples_a_read: int) -> Standardisation:
    """The means and standard deviations of samples, summed in float64, some samples at a time in their order.

    Args:
        samples: float32 (n, ..., channels), an array or an HDF5 dataset; n is 1 or more.
        samples_a_read: how many to read at once; another number may change the last digit.
    """
    n_values = int(np.prod(samples.shape[:-1]))
    starts = range(0, len(samples), samples_a_read)

    def blocks() -> Any:
        for start in starts:
            yield samples[start : start + samples_a_read].reshape(-1, samples.shape[-1]).astype(np.float64)

    mean = sum(block.sum(axis=0) for block in blocks()) / n_values
    deviation = np.sqrt(sum(np.square(block - mean).sum(axis=0) for block in blocks()) / n_values)
    # Below float32's own resolution it is a rounding error of equal values.
    equal = deviation <= np.finfo(np.float32).eps * np.abs(mean)
    return Standardisation(mean, np.where(equal, 1.0, deviation))
