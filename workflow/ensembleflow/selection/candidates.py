"""What a selection chooses from: cached validation predictions, costs, and which models are usable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import METRICS, Metric

__all__ = ["CachedPredictions", "Candidates", "read_candidates"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# A model whose probabilities vary less than this over all samples ignores its input: it has diverged.
_CONSTANT_WITHIN = 1e-6
# Probabilities this far outside 0 … 1 are no rounding of a softmax.
_OUTSIDE_BY = 1e-3


@runtime_checkable
class CachedPredictions(Protocol):
    """An opened `predictions.h5` (`ensembleflow.library.open_predictions`)."""

    @property
    def models(self) -> Sequence[str]:
        """The models' ids."""

    @property
    def study(self) -> str:
        """The study's name."""

    def labels(self, split: str) -> IntArray:
        """Labels of `valid` or `test`: (samples,)."""

    def probabilities(self, split: str) -> npt.NDArray[np.floating[Any]]:
        """Class probabilities: (models, samples, classes)."""

    def true_class_probability(self, split: str) -> npt.NDArray[np.floating[Any]]:
        """The true class's probability: (models, samples)."""


@dataclass(frozen=True)
class Candidates:
    """The validation predictions that a loss needs, and the models that may be chosen.

    Attributes:
        metric: the loss.
        probabilities: (models, samples, classes), or the true class's (models, samples).
        labels: int64 (samples,).
        costs: seconds (models,).
        names: what a message calls each model.
        tie_ranks: order of the models' ids, the last tie-break: int (models,).
        usable: indices of the models that may be chosen, ascending.
        dropped: index to reason of the others.
    """

    metric: Metric
    probabilities: npt.NDArray[np.floating[Any]]
    labels: IntArray
    costs: FloatArray
    names: list[str]
    tie_ranks: npt.NDArray[np.intp]
    usable: npt.NDArray[np.intp]
    dropped: dict[int, str]


def read_candidates(
    probabilities: npt.ArrayLike | CachedPredictions,
    labels: npt.ArrayLike | None,
    costs: npt.ArrayLike | None,
    loss: str,
) -> Candidates:
    """Check the inputs of a selection and drop the models that cannot be averaged.

    Of a cache, losses that need only the true class read (model, sample), and a hundredth of the data.

    Args:
        probabilities: (models, samples, classes), or an opened cache, whose validation split is used.
        labels: (samples,); may be None for a cache, which has them.
        costs: seconds (models,); None counts every model as 0.
        loss: a name of `METRICS`.

    Raises:
        SelectionError: an array's shape or values are wrong, or no model is usable.
    """
    if loss not in METRICS:
        raise SelectionError("unknown loss", found=loss, expected=", ".join(METRICS))
    metric = METRICS[loss]
    if isinstance(probabilities, CachedPredictions):
        names = list(probabilities.models)
        tie_ranks = np.argsort(np.argsort(names, kind="stable"))
        truth = probabilities.labels("valid")
        if labels is not None and not np.array_equal(np.asarray(labels), truth):
            raise SelectionError(
                "the labels are not those of the cached validation split",
                hint="pass labels=None with a cache: it has its own",
            )
        if metric.needs_all_classes:
            values = _float_array(probabilities.probabilities("valid"))
            truth = _check_labels(truth, values)
            reasons = _unusable(values, truth)
        else:
            values = probabilities.true_class_probability("valid")
            reasons = _unusable_by_true_class(values, truth, probabilities)
    else:
        full = _float_array(probabilities)
        truth = _check_labels(labels, full)
        names, tie_ranks = [f"model {index}" for index in range(len(full))], np.arange(len(full))
        reasons = _unusable(full, truth)
        values = full if metric.needs_all_classes else full[:, np.arange(len(truth)), truth]
    usable = np.array([index for index in range(len(names)) if index not in reasons], dtype=np.intp)
    if len(usable) == 0:
        raise SelectionError(
            "no model has usable predictions",
            found="; ".join(f"{names[index]}: {reason}" for index, reason in reasons.items()) or "no model",
            hint="train longer or with a lower learning rate: these models have diverged",
        )
    return Candidates(
        metric, np.ascontiguousarray(values), truth, _check_costs(costs, names), names, tie_ranks, usable, reasons
    )


def _float_array(probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    array = np.asarray(probabilities)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise SelectionError(
            "the probabilities have the wrong shape", found=array.shape, expected="(models, samples, classes)"
        )
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _check_labels(labels: npt.ArrayLike | None, probabilities: npt.NDArray[Any]) -> IntArray:
    _, n_samples, n_classes = probabilities.shape
    given = np.asarray([] if labels is None else labels)
    if given.shape != (n_samples,):
        raise SelectionError("the labels do not match the probabilities", found=given.shape, expected=(n_samples,))
    with np.errstate(invalid="ignore"):
        truth = given.astype(np.int64)
    if (truth != given).any() or truth.min() < 0 or truth.max() >= n_classes:
        raise SelectionError(
            "a label is not a class",
            found=f"{given.min()} … {given.max()}",
            expected=f"integers in 0 … {n_classes - 1}",
        )
    return truth


def _check_costs(costs: npt.ArrayLike | None, names: Sequence[str]) -> FloatArray:
    if costs is None:
        return np.zeros(len(names))
    seconds = np.array(costs, dtype=np.float64)
    if seconds.shape != (len(names),):
        raise SelectionError("the costs do not match the models", found=seconds.shape, expected=(len(names),))
    for name, cost in zip(names, seconds, strict=True):
        if not (np.isfinite(cost) and cost >= 0):
            raise SelectionError("a cost is not a time", where=name, found=cost, expected="seconds, 0 or more")
    return seconds


def _unusable(probabilities: npt.NDArray[np.floating[Any]], labels: IntArray) -> dict[int, str]:
    """Index to reason of the models whose (samples, classes) predictions cannot be averaged."""
    reasons = {index: reason for index, matrix in enumerate(probabilities) if (reason := _bad_values(matrix))}
    constant = [index not in reasons and _is_constant(matrix) for index, matrix in enumerate(probabilities)]
    return _with_constant_ones(reasons, constant, labels)


def _unusable_by_true_class(
    true_class: npt.NDArray[np.floating[Any]], labels: IntArray, predictions: CachedPredictions
) -> dict[int, str]:
    reasons = {index: reason for index, row in enumerate(true_class) if (reason := _bad_values(row))}
    # Constant rows are constant for each true class too; only where that holds are all classes read.
    groups = [labels == label for label in np.unique(labels)]
    suspects = [
        index not in reasons and all(np.ptp(row[group]) <= _CONSTANT_WITHIN for group in groups)
        for index, row in enumerate(true_class)
    ]
    if any(suspects):
        full = predictions.probabilities("valid")
        suspects = [suspect and _is_constant(full[index]) for index, suspect in enumerate(suspects)]
    return _with_constant_ones(reasons, suspects, labels)


def _with_constant_ones(reasons: dict[int, str], constant: Sequence[bool], labels: IntArray) -> dict[int, str]:
    """Add the constant models, unless nothing else is left or all samples have one label anyway."""
    rest = [is_constant for index, is_constant in enumerate(constant) if index not in reasons]
    if all(rest) or labels.min() == labels.max():
        return reasons
    reason = "the same probabilities for every sample"
    reasons = reasons | {index: reason for index, is_constant in enumerate(constant) if is_constant}
    return dict(sorted(reasons.items()))


def _bad_values(values: npt.NDArray[np.floating[Any]]) -> str:
    if not np.isfinite(values).all():
        return "probabilities that are not finite"
    if values.min() < -_OUTSIDE_BY or values.max() > 1 + _OUTSIDE_BY:
        return "probabilities outside 0 … 1"
    return ""


def _is_constant(matrix: npt.NDArray[np.floating[Any]]) -> bool:
    return bool((np.ptp(matrix, axis=0) <= _CONSTANT_WITHIN).all())
