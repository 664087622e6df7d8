"""Ensembles that stop early: thresholds of confidence, and a guarantee of how many images get another class.

Members answer one after the other, the cheapest first. After each one an image stops once the largest probability of
the average so far reaches that stage's threshold; what never stops gets the full ensemble's answer.

Thresholds are found on validation images, from cautious to bold. How bold they may be is found on calibration images,
which chose nothing else: each step of that path is tested, in its order, until one fails (fixed-sequence testing, as in
Angelopoulos et al. 2021, "Learn then Test", section 4.2). So with the confidence asked for at most the share asked for
of new images of the same kind gets another class than the full ensemble gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import array, share
from ensembleflow.errors import ArgumentError, SelectionError
from ensembleflow.models.tolerances import ANSWER_TOLERANCE

__all__ = [
    "Cascade",
    "Guarantee",
    "Stages",
    "calibrate_cascade",
    "find_thresholds",
    "images_needed",
    "share_interval",
    "threshold_path",
]

FloatArray = npt.NDArray[np.float64]

NEVER = math.inf
"""The threshold of a stage at which no image stops."""

# What a changed image costs in full ensembles' answers, from never to often; and, before these, how much further from 0
# the log-odds of the thresholds that change no validation image are moved.
_CHANGE_COSTS = tuple(10.0**exponent for exponent in np.arange(6.0, -0.25, -0.25))
_CAUTIONS = (4.0, 3.0, 2.0, 1.5, 1.0, 0.5)
_MAX_ROUNDS = 50


@dataclass(frozen=True)
class Stages:
    """What an ensemble's members answer to some images, stage by stage.

    Attributes:
        confidences: the largest probability of the average of the first members, float64 (stages, images).
        classes: the class that has it, int64 (stages, images).
    """

    confidences: FloatArray
    classes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: npt.NDArray[np.floating]) -> Stages:
        """The stages of members in their order, of their probabilities (members, images, classes)."""
        values = array("probabilities", probabilities, "f", "floats (members, images, classes)")
        if values.ndim != 3 or not len(values):
            raise ArgumentError(
                "a function cannot take an argument",
                where="probabilities",
                found=f"an array of shape {values.shape}",
                expected="floats (members, images, classes), of one member or more",
            )
        total = np.zeros(values.shape[1:], np.float64)
        confidences, classes = [], []
        for place, member in enumerate(values, start=1):
            total += member
            classes.append(total.argmax(axis=1))
            confidences.append(total.max(axis=1, initial=0.0) / place)
        return cls(np.stack(confidences), np.stack(classes).astype(np.int64))

    @property
    def n_images(self) -> int:
        """Images."""
        return self.confidences.shape[1]

    def stops(self, thresholds: Sequence[float] | FloatArray) -> npt.NDArray[np.int64]:
        """The stage at which each image stops, counted from 0, int64 (images,)."""
        stopped = self.confidences[:-1] >= np.reshape(thresholds, (-1, 1))
        never = len(self.confidences) - 1
        return np.where(stopped.any(axis=0), stopped.argmax(axis=0), never) if never else np.zeros(self.n_images, int)

    def answers(self, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
        """The class that each image gets, int64 (images,)."""
        return self.classes[self.stops(thresholds), np.arange(self.n_images)]

    def changed(self, thresholds: Sequence[float]) -> npt.NDArray[np.bool_]:
        """Which images get another class than the full ensemble gives them, bool (images,)."""
        return self.answers(thresholds) != self.classes[-1]

    def reached(self, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
        """How many images each stage sees, int64 (stages,); the first one sees all."""
        stops = self.stops(thresholds)
        return np.array([int((stops >= stage).sum()) for stage in range(len(self.confidences))], np.int64)


@dataclass(frozen=True)
class Guarantee:
    """What the calibration images say of a cascade.

    Attributes:
        n_images: calibration images.
        n_changed: of them, how many may get another class than the full ensemble gives them.
        max_changed: the largest share that was allowed.
        confidence: how sure it is that the share is no larger.
        upper_bound: the share that it is not larger than, at that confidence (Clopper and Pearson, one-sided).
        n_tested: steps of the path that were tested, the one that failed included.
    """

    n_images: int
    n_changed: int
    max_changed: float
    confidence: float
    upper_bound: float
    n_tested: int


@dataclass(frozen=True)
class Cascade:
    """Thresholds, and how far they can be trusted.

    Attributes:
        thresholds: of each stage but the last, which has none; `inf` stops no image.
        guarantee: of the share of images that get another class.
    """

    thresholds: tuple[float, ...]
    guarantee: Guarantee


def images_needed(max_changed: float, confidence: float) -> int:
    """Calibration images that guarantee a share, where none of them changes its class."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-max_changed))


def share_interval(n_found: int, n_images: int, confidence: float) -> tuple[float, float]:
    """The two-sided interval of a share (Clopper and Pearson): (0, 1) where there is no image."""
    from scipy.stats import beta

    if n_images == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if n_found == 0 else float(beta.ppf(tail, n_found, n_images - n_found + 1))
    high = 1.0 if n_found == n_images else float(beta.ppf(1 - tail, n_found + 1, n_images - n_found))
    return low, high


def calibrate_cascade(
    valid: Stages,
    calibration: Stages,
    costs: Sequence[float],
    max_changed: float,
    confidence: float,
    tolerance: float = ANSWER_TOLERANCE,
) -> Cascade:
    """The boldest thresholds of the path whose share of changed images is guaranteed.

    Where not even the most cautious ones are, no image stops early. A served answer may differ a little from a cached
    one, so an image counts as changed if it changes with any of these thresholds, or with them moved by `tolerance`.

    Args:
        valid: of the validation images, on which thresholds are found.
        calibration: of the calibration images, which chose nothing else.
        costs: of the members in their order, above 0, (stages,).
        max_changed: the largest share of images that may get another class, in 0 … 1.
        confidence: in 0 … 1.
        tolerance: by how much a probability may differ from the cached one when it is served.

    Raises:
        SelectionError: there are too few calibration images to guarantee such a share at all.
    """
    largest, sure = share("max_changed", max_changed), share("confidence", confidence)
    from scipy.stats import binom  # slow to load

    needed = images_needed(largest, sure)
    n_images = calibration.n_images
    if n_images < needed:
        raise SelectionError(
            "there are too few calibration images for a cascade",
            where="selection.cascade.max_changed",
            found=f"{n_images:,} images, of the share {largest:g} of changed images to be guaranteed",
            expected=f"at least {needed:,}, of which none may change",
            hint=f"set max_changed to {_can_guarantee(n_images, sure):.2g} or more; more images, by "
            "dataset.calibration_fraction, make another dataset, with which all is trained again",
        )
    never = (NEVER,) * (len(costs) - 1)
    best = Cascade(never, _guarantee(calibration, never, largest, sure, tolerance, 0))
    for n_tested, thresholds in enumerate(threshold_path(valid, costs, tolerance), start=1):
        guarantee = _guarantee(calibration, thresholds, largest, sure, tolerance, n_tested)
        # The exact test, and not the bound, which is found by iteration.
        if binom.cdf(guarantee.n_changed, n_images, largest) > 1 - sure:
            break
        best = Cascade(thresholds, guarantee)
    return best


def threshold_path(
    valid: Stages, costs: Sequence[float], tolerance: float = ANSWER_TOLERANCE
) -> list[tuple[float, ...]]:
    """Thresholds from cautious to bold, found on validation images alone; no two of them are the same.

    First those that change no validation image's class, moved towards 1 by less and less; then those that
    `find_thresholds` finds for changes that cost less and less. None is nearer to 1 than twice the tolerance: of images
    that sure, answers that are served and those that were cached would lie on both sides of it.
    """
    found: list[tuple[float, ...]] = []
    start: tuple[float, ...] = (NEVER,) * (len(costs) - 1)
    for change_cost in _CHANGE_COSTS:
        start = find_thresholds(valid, costs, change_cost, start)
        found.append(start)
    cautious = [tuple(_moved(threshold, by) for threshold in found[0]) for by in _CAUTIONS]
    never = (NEVER,) * (len(costs) - 1)
    highest = 1 - 2 * tolerance
    capped = [
        tuple(min(threshold, highest) if math.isfinite(threshold) else NEVER for threshold in each)
        for each in (*cautious, *found)
    ]
    return [each for each in dict.fromkeys(capped) if each != never]


def find_thresholds(
    stages: Stages, costs: Sequence[float], change_cost: float, start: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Thresholds of low mean cost, where each image that gets another class costs `change_cost` full ensembles more.

    One stage's threshold at a time is set to its best value given the others', which is found exactly, until none
    changes. That need not be the best of all vectors; the fewer the stages, the more often it is.

    Args:
        stages: of the images.
        costs: of the members in their order, above 0, (stages,).
        change_cost: in full ensembles' answers to one image.
        start: thresholds to begin with; by default those that stop no image.

    Returns:
        A threshold per stage but the last: halfway between two images' confidences, 0 or `inf`.
    """
    cumulative = np.cumsum(np.asarray(costs, np.float64))
    wrong = stages.classes != stages.classes[-1]
    price = cumulative[:, None] / cumulative[-1] + change_cost * wrong
    thresholds = np.full(len(cumulative) - 1, NEVER) if start is None else np.array(start, np.float64)
    for _ in range(_MAX_ROUNDS):
        before = thresholds.copy()
        for stage in reversed(range(len(thresholds))):
            thresholds[stage] = _best_threshold(stages, price, thresholds, stage)
        if np.array_equal(before, thresholds):
            break
    return tuple(float(threshold) for threshold in thresholds)


def _best_threshold(stages: Stages, price: FloatArray, thresholds: FloatArray, stage: int) -> float:
    """The best threshold of one stage, given the others'; of equally good ones the most cautious."""
    earlier = thresholds.copy()
    earlier[stage:] = NEVER
    later = thresholds.copy()
    later[: stage + 1] = NEVER
    arrive = np.flatnonzero(stages.stops(earlier) == len(thresholds))
    if not len(arrive):
        return NEVER
    confidences = stages.confidences[stage, arrive]
    gains = price[stages.stops(later)[arrive], arrive] - price[stage, arrive]
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences = confidences[order]
    # Of stopping the first n of them; images of one confidence stop together.
    total = np.concatenate([[0.0], np.cumsum(gains[order])])
    apart = np.concatenate([[True], sorted_confidences[1:] != sorted_confidences[:-1], [True]])
    total[~apart] = -np.inf
    # Sums of the same gains in another order differ by rounding: the first of the best stops the fewest images.
    n_stopped = int(np.flatnonzero(total >= total.max() - 1e-9)[0])
    if n_stopped == 0:
        return NEVER
    if n_stopped == len(order):
        return 0.0
    return float((sorted_confidences[n_stopped - 1] + sorted_confidences[n_stopped]) / 2)


def _moved(threshold: float, by: float) -> float:
    """A threshold whose log-odds are larger."""
    if not 0 < threshold < 1:
        return threshold
    return 1 / (1 + (1 - threshold) / threshold * math.exp(-by))


def _guarantee(
    calibration: Stages,
    thresholds: Sequence[float],
    max_changed: float,
    confidence: float,
    tolerance: float,
    n_tested: int,
) -> Guarantee:
    from scipy.stats import beta

    moved = [[threshold + by for threshold in thresholds] for by in (-tolerance, 0.0, tolerance)]
    n_images = calibration.n_images
    n_changed = int(np.any([calibration.changed(each) for each in moved], axis=0).sum())
    upper = 1.0 if n_changed == n_images else float(beta.ppf(confidence, n_changed + 1, n_images - n_changed))
    return Guarantee(n_images, n_changed, max_changed, confidence, upper, n_tested)


def _can_guarantee(n_images: int, confidence: float) -> float:
    """The smallest share that so many images can guarantee, rounded up to two digits; 1 where there is none."""
    if n_images == 0:
        return 1.0
    share = 1 - (1 - confidence) ** (1 / n_images)
    digits = 1 - math.floor(math.log10(share))
    return math.ceil(share * 10**digits) / 10**digits
