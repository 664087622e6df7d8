"""The loss of an ensemble that grows one member at a time, for every candidate at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import CHUNK_SAMPLES, Metric, add_in_order, sample_chunks

__all__ = ["GrowingEnsemble"]

FloatArray = npt.NDArray[np.float64]

# Averaged probabilities held at a time (16 MB); it only groups candidates, so no digit depends on it.
_BLOCK_VALUES = 2**21


class GrowingEnsemble:
    """The running sum of the members' probabilities, and the loss with one more member.

    A candidate's loss comes from its own sums over fixed chunks of samples, added first to last in
    float64: it does not depend on which other candidates are evaluated, nor on where a chunk is summed.

    Args:
        metric: the loss.
        probabilities: (models, samples, classes), or the true class's (models, samples) where the metric
            needs no more. Read only; any float type.
        labels: int64 (samples,).
    """

    def __init__(self, metric: Metric, probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> None:
        self.metric = metric
        self.n_members = 0
        self._probabilities = probabilities
        self._labels = labels
        self._sum = np.zeros(probabilities.shape[1:])

    def add(self, model: int) -> None:
        """Make a model a member."""
        self._sum += self._probabilities[model]
        self.n_members += 1

    def losses_with(self, candidates: npt.NDArray[np.intp]) -> FloatArray:
        """The ensemble's loss after adding each candidate alone: float64 (candidates,)."""
        return self.metric.value(add_in_order(list(self.chunk_sums(candidates))), len(self._labels))

    def chunk_sums(self, candidates: npt.NDArray[np.intp]) -> FloatArray:
        """The metric's sums for each chunk of samples and candidate: float64 (chunks, candidates, terms)."""
        values_per_candidate = int(np.prod(self._sum.shape[1:])) * min(CHUNK_SAMPLES, len(self._labels))
        n_block = max(1, _BLOCK_VALUES // max(1, values_per_candidate))
        blocks = [candidates[start : start + n_block] for start in range(0, len(candidates), n_block)]
        return np.stack(
            [
                np.concatenate([self._sums(block, chunk) for block in blocks])
                for chunk in sample_chunks(len(self._labels))
            ]
        )

    def _sums(self, candidates: npt.NDArray[np.intp], chunk: slice) -> FloatArray:
        averages = self._sum[chunk] + self._probabilities[candidates, chunk]
        averages /= self.n_members + 1
        return self.metric.sums(averages, self._labels[chunk])
