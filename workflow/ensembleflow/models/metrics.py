"""Metrics of class probabilities, as sums over samples so that any split into chunks can be added up.

Every metric is a loss: lower is better. The tables use these sums, the ensemble selection compiled ones that add in
another order: a table's value and a selection's loss agree to rounding. Of two classes that are equally probable but
for rounding, one may predict the first and the other the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALL_METRICS",
    "CHUNK_SAMPLES",
    "METRICS",
    "SMALLEST_PROBABILITY",
    "Metric",
    "add_in_order",
    "calibration_error",
    "classification_metrics",
    "metrics_of_sums",
    "sample_chunks",
    "sums_of_chunk",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SMALLEST_PROBABILITY = 1e-15
"""Probabilities below it count as this in the cross-entropy: a true class of probability 0 costs 34.5."""

CHUNK_SAMPLES = 1024
"""Samples summed at a time. Part of the results' last digits, hence never derived from memory or cores."""


class Metric(ABC):
    """A metric that is computed from sums over samples (the arrays' leading axes are ensembles)."""

    name: ClassVar[str]
    needs_all_classes: ClassVar[bool] = True

    @abstractmethod
    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        """Sums over one chunk of samples.

        Args:
            probabilities: float64 (..., samples, classes), or the true class's (..., samples) when
                `needs_all_classes` is false.
            labels: int64 (samples,).
            predicted: the most probable classes (..., samples), the lowest of equal ones, where they are known.

        Returns:
            float64 (..., terms).
        """

    @abstractmethod
    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        """The metric (...,) from the chunks' added sums (..., terms)."""


class CrossEntropy(Metric):
    """-log of the true class's probability (natural logarithm), averaged over samples."""

    name = "cross_entropy"
    needs_all_classes = False

    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        logarithms = np.maximum(probabilities, SMALLEST_PROBABILITY)
        np.log(logarithms, out=logarithms)
        return 0.0 - logarithms.sum(axis=-1)[..., None]

    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        return totals[..., 0] / n_samples


class ErrorRate(Metric):
    """1 - accuracy; of equally probable classes the lowest is the prediction."""

    name = "error"

    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        wrong = _predicted(probabilities, predicted) != labels
        return np.count_nonzero(wrong, axis=-1)[..., None].astype(np.float64)

    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        return totals[..., 0] / n_samples


class MacroF1Error(Metric):
    """1 - the unweighted mean of the classes' F1 scores, over classes that are labelled or predicted."""

    name = "macro_f1_error"

    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        *leading, n_samples, n_classes = probabilities.shape
        classes = _predicted(probabilities, predicted).reshape(-1, n_samples)
        n_rows = len(classes)
        cells = 2 * (classes + n_classes * np.arange(n_rows)[:, None]) + (classes == labels)
        missed_and_hit = np.bincount(cells.ravel(), minlength=2 * n_rows * n_classes).reshape(n_rows, n_classes, 2)
        counts = np.empty((n_rows, 3, n_classes))
        counts[:, 0] = missed_and_hit[..., 1]
        counts[:, 1] = missed_and_hit.sum(axis=-1)
        counts[:, 2] = np.bincount(labels, minlength=n_classes)
        return counts.reshape(*leading, 3 * n_classes)

    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        hits, predicted, labelled = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
        seen = predicted + labelled
        f1 = 2.0 * hits / np.where(seen > 0, seen, 1.0)
        return 1.0 - f1.sum(axis=-1) / np.count_nonzero(seen, axis=-1)


class Brier(Metric):
    """Squared distance between the probabilities and the one-hot label, averaged over samples (0 to 2)."""

    name = "brier"

    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        distances = probabilities.copy()
        distances[..., np.arange(len(labels)), labels] -= 1.0
        np.square(distances, out=distances)
        return distances.reshape(*distances.shape[:-2], -1).sum(axis=-1)[..., None]

    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        return totals[..., 0] / n_samples


class CalibrationError(Metric):
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3).

    A sample's confidence is its highest probability. In 15 bins of equal width, (0, 1/15] to (14/15, 1], the mean
    confidence is held against the share of right predictions; the absolute differences are averaged, each bin weighted
    by its share of the samples.
    """

    name = "calibration_error"
    n_bins: ClassVar[int] = 15

    def sums(self, probabilities: FloatArray, labels: IntArray, predicted: IntArray | None = None) -> FloatArray:
        *leading, n_samples, _ = probabilities.shape
        classes = _predicted(probabilities, predicted)
        confidences = np.take_along_axis(probabilities, classes[..., None], axis=-1).reshape(-1, n_samples)
        hits = (classes == labels).reshape(-1, n_samples)
        # A confidence on an edge belongs to the bin below it.
        bins = np.searchsorted(np.arange(1, self.n_bins) / self.n_bins, confidences, side="left")
        n_rows = len(bins)
        cells = (bins + self.n_bins * np.arange(n_rows)[:, None]).ravel()
        excess = np.bincount(cells, (confidences - hits).ravel(), minlength=n_rows * self.n_bins)
        return excess.reshape(*leading, self.n_bins).astype(np.float64)

    def value(self, totals: FloatArray, n_samples: int) -> FloatArray:
        return np.abs(totals).sum(axis=-1) / n_samples


METRICS: dict[str, Metric] = {metric.name: metric for metric in (ErrorRate(), MacroF1Error(), CrossEntropy(), Brier())}
"""The metrics that can be selected by."""

ALL_METRICS: dict[str, Metric] = {**METRICS, CalibrationError.name: CalibrationError()}
"""Those that are reported."""


def classification_metrics(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """Error, macro-F1 error, cross-entropy and Brier score of one matrix of class probabilities.

    Args:
        probabilities: (samples, classes), any float type; summed in float64.
        labels: (samples,), integers in 0 … classes - 1.

    Returns:
        The four values by name. All are NaN without samples, or where a probability is not finite.
    """
    return _metrics_of_matrix(probabilities, labels, METRICS)


def calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Expected calibration error, 0 to 1, of one matrix of class probabilities; see `CalibrationError`.

    Args:
        probabilities: (samples, classes), any float type; summed in float64.
        labels: (samples,), integers in 0 … classes - 1.

    Returns:
        The value; NaN without samples, or where a probability is not finite.
    """
    calibration = ALL_METRICS[CalibrationError.name]
    return _metrics_of_matrix(probabilities, labels, {calibration.name: calibration})[calibration.name]


def _metrics_of_matrix(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    matrix, truth = np.asarray(probabilities), np.asarray(labels, dtype=np.int64)
    parts = [
        sums_of_chunk(matrix[chunk].astype(np.float64), truth[chunk], metrics) for chunk in sample_chunks(len(truth))
    ]
    totals = {name: add_in_order([part[name] for part in parts]) for name in metrics} if parts and all(parts) else {}
    return metrics_of_sums(totals, len(truth), metrics)


def sums_of_chunk(probabilities: FloatArray, labels: IntArray, metrics: Mapping[str, Metric]) -> dict[str, FloatArray]:
    """The sums of several metrics over one chunk of samples.

    Args:
        probabilities: float64 (samples, classes), or the true class's (samples,), which metrics that need all classes
            are left out of.
        labels: int64 (samples,).
        metrics: by name.

    Returns:
        The metrics' sums (terms,) by name; none at all where a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        return {}
    if probabilities.ndim == 1:
        return {
            name: metric.sums(probabilities, labels) for name, metric in metrics.items() if not metric.needs_all_classes
        }
    true_class = probabilities[np.arange(len(labels)), labels]
    predicted = probabilities.argmax(axis=-1)
    return {
        name: metric.sums(probabilities if metric.needs_all_classes else true_class, labels, predicted)
        for name, metric in metrics.items()
    }


def metrics_of_sums(
    totals: Mapping[str, FloatArray], n_samples: int, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """The metrics' values by name, from the added sums of all chunks; NaN for a metric without sums."""
    return {
        name: float(metric.value(totals[name], n_samples)) if name in totals else float("nan")
        for name, metric in metrics.items()
    }


def _predicted(probabilities: FloatArray, known: IntArray | None) -> IntArray:
    return probabilities.argmax(axis=-1) if known is None else known


def sample_chunks(n_samples: int, chunk_samples: int = CHUNK_SAMPLES) -> Iterator[slice]:
    """The chunks of `n_samples` samples, in order."""
    return (slice(start, start + chunk_samples) for start in range(0, n_samples, chunk_samples))


def add_in_order(chunks: list[FloatArray]) -> FloatArray:
    """Add the chunks' sums first to last: the same digits wherever each was computed."""
    total = chunks[0]
    for sums in chunks[1:]:
        total = total + sums
    return total
