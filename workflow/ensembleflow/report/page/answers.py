"""An ensemble's answers on the test images, and what can be said of them with what certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ensembleflow.library import open_predictions
from ensembleflow.models.metrics import ALL_METRICS, sample_chunks
from ensembleflow.report.page.study import Study

__all__ = ["CONFIDENCE", "N_BINS", "Answers", "Bin", "error_interval", "paired_difference", "test_answers"]

CONFIDENCE = 0.95
N_BINS = ALL_METRICS["calibration_error"].n_bins  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Bin:
    """Test images that an ensemble answered with about the same confidence."""

    n_images: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Answers:
    """Whether each test image was answered rightly, bool (samples,), and how sure the ensemble was, (samples,)."""

    right: npt.NDArray[np.bool_]
    confidences: npt.NDArray[np.float64]

    @property
    def n_wrong(self) -> int:
        """Images answered wrongly."""
        return int(np.count_nonzero(~self.right))

    @property
    def interval(self) -> tuple[float, float]:
        """The error's interval; see `error_interval`."""
        return error_interval(self.n_wrong, len(self.right))

    def bins(self) -> list[Bin]:
        """The bins of the calibration error that hold images: confidence held against the share of right answers.

        A confidence on an edge belongs to the bin below it, as in `ensembleflow.models.metrics.CalibrationError`.
        """
        places = np.searchsorted(np.arange(1, N_BINS) / N_BINS, self.confidences, side="left")
        bins = []
        for place in np.unique(places):
            inside = places == place
            n_images, n_right = int(inside.sum()), int(self.right[inside].sum())
            bins.append(
                Bin(
                    n_images,
                    float(self.confidences[inside].mean()),
                    n_right / n_images,
                    error_interval(n_right, n_images),
                )
            )
        return bins


def error_interval(n_wrong: int, n_images: int) -> tuple[float, float]:
    """The 95 % interval of an error rate (Wilson, JASA 1927), from that many wrong answers, as shares of 1."""
    interval = binomtest(n_wrong, n_images).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(one: Answers, other: Answers) -> tuple[int, int, float]:
    """What two ensembles make of the same images.

    Returns:
        The images that only the first answers rightly, those that only the second does, and the p-value of McNemar's
        exact test that the two are equally often right (1 where they never differ).
    """
    only_one = int(np.count_nonzero(one.right & ~other.right))
    only_other = int(np.count_nonzero(other.right & ~one.right))
    differ = only_one + only_other
    return only_one, only_other, float(binomtest(only_one, differ).pvalue) if differ else 1.0


def test_answers(study: Study, ensembles: Mapping[str, Sequence[str]]) -> dict[str, Answers] | None:
    """The answers of ensembles whose members' probabilities are averaged, from the cached predictions.

    Args:
        study: whose predictions.
        ensembles: the members' ids by the ensemble's name.

    Returns:
        The answers by the ensemble's name; None where only the true class's probabilities are cached.

    Raises:
        ArtefactError: the cache is missing or damaged.
    """
    with open_predictions(study.path("library/predictions.h5")) as predictions:
        if not predictions.has_every_class:
            return None
        values, labels = predictions.probabilities("test"), predictions.labels("test")
        places = {model: place for place, model in enumerate(predictions.models)}
        found = {}
        for name, members in ensembles.items():
            rows = [places[member] for member in members if member in places]
            if not len(rows) == len(members) > 0:
                continue  # chosen from an earlier cache
            right = np.empty(len(labels), dtype=np.bool_)
            confidences = np.empty(len(labels))
            for chunk in sample_chunks(len(labels)):
                mean = np.mean([values[row, chunk] for row in rows], axis=0, dtype=np.float64)
                right[chunk] = mean.argmax(axis=-1) == labels[chunk]
                confidences[chunk] = mean.max(axis=-1)
            found[name] = Answers(right, confidences)
    return found
