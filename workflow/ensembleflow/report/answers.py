"""Answers on the test images, an ensemble's or the baseline's, and what can be said of them with what certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv
from ensembleflow.library import open_predictions
from ensembleflow.models.metrics import ALL_METRICS, sample_chunks

__all__ = [
    "CONFIDENCE",
    "N_BINS",
    "Answers",
    "Bin",
    "answers_on_test",
    "baseline_answers",
    "counted_difference",
    "difference_interval",
    "error_interval",
    "paired_difference",
]

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
    """What was answered on the test images.

    Args:
        labels: the true classes, (samples,).
        predicted: the classes answered, (samples,).
        confidences: how sure the answers were, (samples,); NaN where that is not known.
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image was answered rightly, (samples,)."""
        return np.asarray(self.predicted == self.labels)

    def are_of_the_images_of(self, other: Answers) -> bool:
        """Whether the other answers are to the same images, as far as their labels tell: they can be paired then."""
        return np.array_equal(self.labels, other.labels)

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
    from scipy.stats import binomtest  # slow to load

    interval = binomtest(n_wrong, n_images).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(one: Answers, other: Answers) -> tuple[int, int, float]:
    """What two ensembles make of the same images.

    Returns:
        The images that only the first answers rightly, those that only the second does, and the p-value of McNemar's
        exact test that the two are equally often right (1 where they never differ).
    """
    from scipy.stats import binomtest

    only_one = int(np.count_nonzero(one.right & ~other.right))
    only_other = int(np.count_nonzero(other.right & ~one.right))
    differ = only_one + only_other
    return only_one, only_other, float(binomtest(only_one, differ).pvalue) if differ else 1.0


def difference_interval(one: Answers, other: Answers) -> tuple[float, float, float]:
    """How much more often one errs than the other on the same images, with its interval; see `counted_difference`."""
    only_one = int(np.count_nonzero(~one.right & other.right))
    only_other = int(np.count_nonzero(one.right & ~other.right))
    return counted_difference(len(one.right), one.n_wrong, only_one, only_other)


def counted_difference(n_images: int, n_wrong: int, only_one: int, only_other: int) -> tuple[float, float, float]:
    """How much more often one errs than another on the same images, with the 95 % interval, as shares of 1.

    The interval is Newcombe's for paired proportions, from the two errors' Wilson intervals and their correlation
    (Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17, 1998, method 10).

    Args:
        n_images: images that both answered.
        n_wrong: those that the first answered wrongly.
        only_one: those that only the first answered wrongly.
        only_other: those that only the other did.

    Returns:
        The first one's error less the other's (below 0: the first errs less), and the interval's bounds.
    """
    both_wrong, n_wrong_other = n_wrong - only_one, n_wrong - only_one + only_other
    both_right = n_images - both_wrong - only_one - only_other
    difference = (only_one - only_other) / n_images
    (low, high), (other_low, other_high) = error_interval(n_wrong, n_images), error_interval(n_wrong_other, n_images)
    error, other_error = n_wrong / n_images, n_wrong_other / n_images
    excess = float(both_wrong * both_right - only_one * only_other)
    # The continuity correction of method 10: correlation that chance may have made counts for nothing.
    excess = max(excess - n_images / 2, 0.0) if excess > 0 else excess
    margins = n_wrong * (n_images - n_wrong) * n_wrong_other * (n_images - n_wrong_other)
    correlation = excess / sqrt(margins) if margins else 0.0

    def reach(first: float, second: float) -> float:
        return sqrt(max(first**2 - 2 * correlation * first * second + second**2, 0.0))

    down = reach(error - low, other_high - other_error)
    up = reach(high - error, other_error - other_low)
    return difference, difference - down, difference + up


def answers_on_test(predictions_h5: str | Path, ensembles: Mapping[str, Sequence[str]]) -> dict[str, Answers] | None:
    """The answers of ensembles whose members' probabilities are averaged, from the cached predictions.

    Args:
        predictions_h5: the library's cache.
        ensembles: the members' ids by the ensemble's name.

    Returns:
        The answers by the ensemble's name; None where only the true class's probabilities are cached.

    Raises:
        ArtefactError: the cache is missing or damaged.
    """
    with open_predictions(predictions_h5) as predictions:
        if not predictions.has_every_class:
            return None
        values, labels = predictions.probabilities("test"), predictions.labels("test")
        places = {model: place for place, model in enumerate(predictions.models)}
        found = {}
        for name, members in ensembles.items():
            rows = [places[member] for member in members if member in places]
            if not len(rows) == len(members) > 0:
                continue  # chosen from an earlier cache
            predicted = np.empty(len(labels), dtype=np.int64)
            confidences = np.empty(len(labels))
            for chunk in sample_chunks(len(labels)):
                mean = np.mean([values[row, chunk] for row in rows], axis=0, dtype=np.float64)
                predicted[chunk] = mean.argmax(axis=-1)
                confidences[chunk] = mean.max(axis=-1)
            found[name] = Answers(labels, predicted, confidences)
    return found


def baseline_answers(answers_csv: str | Path, split: str = "test") -> Answers | None:
    """The baseline's answers on a split; None where no baseline was fitted.

    Raises:
        ArtefactError: the table is missing or damaged.
    """
    table = read_csv(answers_csv, ["split", "image", "label", "predicted"])
    own = table[table.split == split]
    if own.empty:
        return None
    if own.image.tolist() != list(range(len(own))):
        raise ArtefactError("an artefact is truncated or damaged", where=answers_csv, expected="every image in order")
    return Answers(own.label.to_numpy(np.int64), own.predicted.to_numpy(np.int64), np.full(len(own), np.nan))
