"""Lower bounds on the loss of every ensemble of a size: convex relaxations, made linear where they are lowest.

An ensemble of m models is a vector w of weights, 1/m for each member and 0 for the others. For the losses that are
convex in the average, h(w) is at least its value and slope at any other weights v, and half of (w - v)' D (w - v)
more, where the diagonal D is below the curvature of h. As each weight is 0 or 1/m, that is a constant and one number a
member: the best ensemble of a size has the m lowest of them. Any v gives a valid bound; the highest comes from the v
where the relaxation is lowest.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import SMALLEST_PROBABILITY, sample_chunks
from ensembleflow.selection.sums.partition import Source

__all__ = ["Bounds", "BrierRelaxation", "CrossEntropyRelaxation", "Relaxation", "bounds_by_size"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Of the magnitudes that were added up: some hundred times what float64 sums of such lengths may lose.
_ROUNDING = 1e-11
_CHUNK_VALUES = 2**21
# What the lowest point is looked for on; all samples take part in the bound.
_SAMPLED_VALUES = 2**18
_EVERY_SIZE_UP_TO = 12
_ROUNDS = 2
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_PRICE_STEPS = 30


class Relaxation(ABC):
    """A convex loss of weighted averages: float64 weights (models,) that add up to 1.

    Attributes:
        n_models: how many there are.
        floor: no average of theirs has a lower loss.
    """

    n_models: int
    floor: float

    @abstractmethod
    def derivatives(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """First (models,) and second (models, models) derivatives, about: of some of the samples."""

    @abstractmethod
    def curvature(self, weights: FloatArray, size: int) -> FloatArray:
        """What `tangents` says of it, about: of some of the samples."""

    @abstractmethod
    def tangents(self, points: FloatArray, sizes: Sequence[int]) -> list[Tangent]:
        """The tangents at some points (points, models), each for averages of so many models or more."""


@dataclass(frozen=True)
class Tangent:
    """A loss at a point v, of all samples: h(w) >= value + slope'(w - v) + (w - v)' curvature (w - v) / 2.

    Attributes:
        value: h(v).
        slope: first derivatives (models,).
        curvature: symmetric (models, models).
    """

    value: float
    slope: FloatArray
    curvature: FloatArray


class BrierRelaxation(Relaxation):
    """The Brier score: a quadratic form of the models' residuals, since the weights add up to 1.

    Args:
        source: probabilities of every class.
        models: in the order that the weights are in.
    """

    def __init__(self, source: Source, models: IntArray) -> None:
        self.n_models, self.floor = len(models), 0.0
        self._products = np.zeros((len(models), len(models)))
        for values, labels in _chunks(source, models):
            values[:, np.arange(len(labels)), labels] -= 1.0
            residuals = values.reshape(len(models), -1)
            self._products += residuals @ residuals.T
        self._products /= source.n_samples

    def derivatives(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of all samples."""
        return 2.0 * self._products @ weights, 2.0 * self._products

    def curvature(self, weights: FloatArray, size: int) -> FloatArray:
        """The same everywhere."""
        return 2.0 * self._products

    def tangents(self, points: FloatArray, sizes: Sequence[int]) -> list[Tangent]:
        """Of a quadratic form."""
        curvature = 2.0 * self._products
        return [Tangent(float(0.5 * point @ curvature @ point), curvature @ point, curvature) for point in points]


# Where the tangent from -log(SMALLEST_PROBABILITY) at 0 touches -log.
_TOUCHES = math.e * SMALLEST_PROBABILITY


class CrossEntropyRelaxation(Relaxation):
    """The cross-entropy's convex envelope: -log, and below `e * SMALLEST_PROBABILITY` the tangent that meets it there.

    -log(max(x, SMALLEST_PROBABILITY)) itself is not convex. The tangent starts from the same value at 0 and is never
    above it. Probabilities below 0, which are rounding, count as 0: that can only lower the bound.

    Args:
        source: the true class's probabilities.
        models: in the order that the weights are in.
    """

    def __init__(self, source: Source, models: IntArray) -> None:
        self.n_models = len(models)
        self._source, self._models = source, models
        stride = max(1, len(models) * source.n_samples // _SAMPLED_VALUES)
        sampled, best = [], 0.0
        for values in self._chunks():
            sampled.append(values[:, ::stride].copy())
            # As if the best model of each sample were known.
            best -= float(np.log(np.maximum(values.max(axis=0), SMALLEST_PROBABILITY)).sum()) / source.n_samples
        self.floor = best - _ROUNDING * (1.0 + abs(best))
        self._sampled = np.concatenate(sampled, axis=1)
        self._sampled_highest = _highest_sums(self._sampled)

    def _chunks(self) -> Iterator[FloatArray]:
        return (np.maximum(values, 0.0, out=values) for values, _ in _chunks(self._source, self._models))

    def derivatives(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of the sampled samples."""
        scaled = self._sampled / np.maximum(weights @ self._sampled, _TOUCHES)
        n_samples = scaled.shape[1]
        return -scaled.sum(axis=1) / n_samples, scaled @ scaled.T / n_samples

    def curvature(self, weights: FloatArray, size: int) -> FloatArray:
        """Of the sampled samples."""
        averages = weights @ self._sampled
        return _log_curvature(self._sampled, averages, self._sampled_highest[size - 1] / size) / len(averages)

    def tangents(self, points: FloatArray, sizes: Sequence[int]) -> list[Tangent]:
        """In one pass over the data."""
        n_points, n_models = points.shape
        values, slopes = np.zeros(n_points), np.zeros((n_points, n_models))
        curvatures = np.zeros((n_points, n_models, n_models))
        for chunk in self._chunks():
            averages = points @ chunk
            touching = np.maximum(averages, _TOUCHES)
            values += (1.0 - averages / touching - np.log(touching)).sum(axis=1)
            slopes -= (1.0 / touching) @ chunk.T
            highest = _highest_sums(chunk)
            for place, size in enumerate(sizes):
                curvatures[place] += _log_curvature(chunk, averages[place], highest[size - 1] / size)
        n_samples = self._source.n_samples
        return [
            Tangent(float(value) / n_samples, slope / n_samples, curvature / n_samples)
            for value, slope, curvature in zip(values, slopes, curvatures, strict=True)
        ]


def _highest_sums(values: FloatArray) -> FloatArray:
    """What the first, the first two, ... highest of the models' values of each sample add up to (models, samples)."""
    return np.cumsum(-np.sort(-values, axis=0), axis=0)


def _log_curvature(values: FloatArray, averages: FloatArray, highest: FloatArray) -> FloatArray:
    """Twice the largest q with -log x >= -log y - (x - y) / y + q (x - y)^2 for all x up to the highest, summed.

    With t = x / y, (t - 1 - log t) / (t - 1)^2 falls with t: it is lowest at the highest x.

    Args:
        values: (models, samples).
        averages: y (samples,).
        highest: (samples,).
    """
    y = np.maximum(averages, _TOUCHES)
    t = np.maximum(highest / y, 0.5)
    excess = t - 1.0
    near = np.abs(excess) < 1e-3
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(near, 0.5 - excess / 3.0, (excess - np.log(t)) / excess**2) * (1.0 - 1e-9)
    # An average on the tangent's straight part has no curvature.
    scaled = values * np.where(values.min(axis=0) > 2 * _TOUCHES, np.sqrt(2.0 * q) / y, 0.0)
    return scaled @ scaled.T


def _chunks(source: Source, models: IntArray) -> Iterator[tuple[FloatArray, IntArray]]:
    n_values = len(models) * (source.n_classes if source.read(0, 1)[0].ndim == 3 else 1)
    for chunk in sample_chunks(source.n_samples, max(1, _CHUNK_VALUES // n_values)):
        values, labels = source.read(chunk.start, min(chunk.stop, source.n_samples))
        yield values[models].astype(np.float64), labels


@dataclass(frozen=True)
class Bounds:
    """Of each size: a constant and one number per model; with the members' numbers it is below the ensemble's loss.

    Attributes:
        floor: no ensemble of any size has a lower loss.
        constants: float64 (sizes,).
        scores: float64 (sizes, models).
    """

    floor: float
    constants: FloatArray
    scores: FloatArray


def bounds_by_size(relaxation: Relaxation, sizes: Sequence[int], costs: FloatArray, limits: FloatArray) -> Bounds:
    """Bounds on the loss of all ensembles within a budget, for every size.

    Args:
        relaxation: the loss.
        sizes: consecutive, ascending.
        costs: (columns, models).
        limits: (columns,), the most that the members' sum may be.
    """
    grid = [size for place, size in enumerate(sizes) if place == 0 or _is_solved(size)]
    points, prices = [], []
    weights = np.full(relaxation.n_models, 1.0 / relaxation.n_models)
    for size in grid:
        for _ in range(_ROUNDS):
            diagonal = _diagonal_below(relaxation.curvature(weights, size), weights, size)
            weights, price = _lowest_point(relaxation, diagonal, size, costs, limits)
        points.append(weights)
        prices.append(price)
    tangents = relaxation.tangents(np.array(points), grid)
    diagonals = [
        _diagonal_below(tangent.curvature, point, size)
        for tangent, point, size in zip(tangents, points, grid, strict=True)
    ]
    constants, scores = [], []
    for size in sizes:
        # What holds of averages of some models holds of averages of more, if less tightly.
        place = max(place for place, solved in enumerate(grid) if solved <= size)
        point, tangent, diagonal = points[place], tangents[place], diagonals[place]
        constant = tangent.value - float(tangent.slope @ point) + 0.5 * float(diagonal @ point**2)
        score = (tangent.slope - diagonal * point) / size + 0.5 * diagonal / size**2
        magnitude = abs(tangent.value) + 2 * float(np.abs(tangent.slope).max() + np.abs(diagonal).max())
        constant, score = _with_prices(constant, score, size, prices[place], costs, limits)
        constant -= _ROUNDING * (magnitude + abs(constant))
        # Where the numbers have broken down the floor is left.
        valid = math.isfinite(constant) and bool(np.isfinite(score).all())
        constants.append(constant if valid else relaxation.floor)
        scores.append(score if valid else np.zeros(relaxation.n_models))
    return Bounds(relaxation.floor, np.array(constants), np.array(scores))


def _is_solved(size: int) -> bool:
    return size <= _EVERY_SIZE_UP_TO or size % _EVERY_SIZE_UP_TO == 0


def _diagonal_below(matrix: FloatArray, point: FloatArray, size: int) -> FloatArray:
    """A diagonal (models,) such that x' D x <= x' M x for every x that adds up to 0.

    Of all such diagonals about the one that raises the relaxation of a size the most at a point: the semidefinite
    program max_d gains'd, M - D >= 0, by Newton's method with a logarithmic barrier.
    """
    n = len(matrix)
    scale = float(np.trace(matrix)) / n
    if n == 1 or scale <= 0:
        return np.zeros(n)
    # Where the weights add up to 0 this is the matrix.
    left = matrix + scale
    gains = point * (1.0 / size - point)
    # All count somewhat: deeper in a search the lowest points are others.
    gains = np.maximum(gains, 0.0) / max(float(gains.mean()), 1e-12) + 1.0
    definite = left + 1e-9 * scale * np.eye(n)
    diagonal = np.zeros(n)
    barrier = float(gains @ (1.0 / np.diag(np.linalg.inv(definite)))) / n
    end = 1e-3 * barrier
    while barrier > end:
        try:
            root = np.linalg.inv(np.linalg.cholesky(definite - np.diag(diagonal)))
        except np.linalg.LinAlgError:
            break
        inverse = root.T @ root
        step = np.linalg.solve(barrier * inverse**2, gains - barrier * np.diag(inverse))
        highest = float(np.linalg.eigvalsh((root * step) @ root.T)[-1])
        diagonal = diagonal + min(1.0, 0.8 / max(highest, 1e-300)) * step
        barrier *= 0.4
    # What rounding may have made too much.
    return diagonal - max(0.0, -float(np.linalg.eigvalsh(left - np.diag(diagonal))[0])) - 1e-10 * scale


def _lowest_point(
    relaxation: Relaxation, diagonal: FloatArray, size: int, costs: FloatArray, limits: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """About where the relaxation of a size is lowest within the budget: weights (models,), prices (columns,).

    Newton's method with logarithmic barriers for 0 <= w <= 1 / size and for what is left of each column's limit; the
    multipliers of the columns are the prices: of the loss, by share of the limit.
    """
    n, n_columns = relaxation.n_models, len(limits)
    weights, highest = np.full(n, 1.0 / n), 1.0 / size
    if size >= n:
        return weights, np.zeros(n_columns)
    shares = size * costs / limits[:, None]
    left = np.maximum(1.0 - shares @ weights, 0.1)
    prices = np.zeros(n_columns)
    slope, _ = relaxation.derivatives(weights)
    barrier = 0.1 * float(np.ptp(slope)) / n + 1e-12
    end = 1e-6 * barrier
    equalities = np.block([[np.ones(n), np.zeros(n_columns)], [shares, np.eye(n_columns)]])
    kkt = np.zeros((n + 2 * n_columns + 1,) * 2)
    kkt[n + n_columns :, : n + n_columns] = equalities
    kkt[: n + n_columns, n + n_columns :] = equalities.T
    while barrier > end:
        slope, curvature = relaxation.derivatives(weights)
        slope = slope + diagonal * (0.5 * highest - weights)
        room = highest - weights
        gradient = np.append(slope - barrier / weights + barrier / room, -barrier / left)
        kkt[:n, :n] = curvature - np.diag(diagonal) + np.diag(barrier / weights**2 + barrier / room**2)
        kkt[n : n + n_columns, n : n + n_columns] = np.diag(barrier / left**2)
        missing = np.append(1.0 - weights.sum(), 1.0 - shares @ weights - left)
        try:
            step = np.linalg.solve(kkt, np.append(-gradient, missing))
        except np.linalg.LinAlgError:
            break
        prices = step[n + n_columns + 1 :]
        down, up = np.append(weights, left), np.append(room, np.full(n_columns, np.inf))
        step = step[: n + n_columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            farthest = float(np.where(step < 0, -down / step, np.where(step > 0, up / step, np.inf)).min())
        step *= min(1.0, 0.95 * farthest)
        weights, left = weights + step[:n], left + step[n:]
        barrier *= 0.4
    return weights / weights.sum(), np.maximum(prices, 0.0)


def _with_prices(
    constant: float, score: FloatArray, size: int, prices: FloatArray, costs: FloatArray, limits: FloatArray
) -> tuple[float, FloatArray]:
    """Add what the members' costs lack of the limits, at the prices near the given ones that give the highest bound.

    Within the budget no column's sum exceeds its limit, so the bound holds at any prices of 0 or more.
    """
    shares = costs / limits[:, None]

    def bound(column: int, price: float) -> float:
        trial = np.where(np.arange(len(limits)) == column, price, prices)
        return float(np.partition(score + trial @ shares, size - 1)[:size].sum() - trial.sum())

    for column, price in enumerate(prices):
        # The bound is concave in a price: golden-section search.
        low, high = 0.0, 2.0 * max(float(price), float(np.ptp(score)))
        for _ in range(_PRICE_STEPS):
            first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            low, high = (low, second) if bound(column, first) >= bound(column, second) else (first, high)
        tried = [0.0, float(price), low, high]
        best = tried[int(np.argmax([bound(column, each) for each in tried]))]
        prices = np.where(np.arange(len(limits)) == column, best, prices)
    return constant - float(prices.sum()), score + prices @ shares
