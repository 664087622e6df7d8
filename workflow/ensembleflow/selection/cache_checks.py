"""What is wrong with a predictions cache, of both splits and every class, before anything is selected from it."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import SelectionError
from ensembleflow.library import FileSource, Predictions
from ensembleflow.library.predictions import SPLITS
from ensembleflow.selection.sums.checks import (
    Ranges,
    joined_ranges,
    not_finite_reasons,
    ranges_of,
    refuse_bad_sums,
    refuse_outside,
)

__all__ = ["model_places", "models_diverged_in_cache"]

IntArray = npt.NDArray[np.int64]

_BYTES_AT_ONCE = 2**26


def models_diverged_in_cache(predictions: Predictions) -> dict[int, str]:
    """Index to reason of the models with probabilities that are not finite, in any stored class of either split.

    Where the cache records them, nothing is read: `create_predictions` has checked what it wrote. Else all that is
    stored is read once, some samples of all models at a time. For a segmentation whose every class is cached that
    takes as long as its file takes to read, in every selection. Of a cache of the true class alone, validation is left
    to the selection's workers, who look at what they read.

    Args:
        predictions: whose labels were checked.

    Raises:
        SelectionError: probabilities are outside 0 … 1, do not add up to 1, or are not those stored of the true class.
    """
    reasons: dict[int, str] = {}
    looked_at: dict[str, tuple[Ranges, IntArray]] = {}
    # The reason of a model that has diverged in both splits names its first validation sample.
    for split in reversed(SPLITS):
        first_not_finite = predictions.first_not_finite(split)
        if first_not_finite is None and (predictions.has_every_class or split != "valid"):
            looked_at[split] = _look_through(predictions, split)
            first_not_finite = looked_at[split][0].first_not_finite
        if first_not_finite is not None:
            reasons |= not_finite_reasons(first_not_finite, split)
    for split, (ranges, first_other) in looked_at.items():
        places = model_places(predictions, split)
        refuse_outside(ranges, places, reasons)
        refuse_bad_sums(ranges, places, reasons)
        _refuse_other_true_classes(first_other, places, reasons)
    return reasons


def model_places(predictions: Predictions, split: str) -> list[str]:
    """What a message calls each model's values in a split."""
    return [f"{predictions.path}: {model}, {split}" for model in predictions.models]


def _look_through(predictions: Predictions, split: str) -> tuple[Ranges, IntArray]:
    """The ranges of a split's values, and each model's first sample with another true-class probability, or -1."""
    true_classes = FileSource(predictions.path, split, every_class=False)
    stored = FileSource(predictions.path, split, predictions.has_every_class)
    one_sample, _ = stored.read(0, min(1, stored.n_samples))
    first_other = np.full(len(predictions.models), -1, dtype=np.int64)
    parts: list[Ranges] = []
    n_at_once = max(1, _BYTES_AT_ONCE // max(1, one_sample.nbytes))
    for start in range(0, max(1, stored.n_samples), n_at_once):
        stop = min(start + n_at_once, stored.n_samples)
        values, labels = stored.read(start, stop)
        parts.append(ranges_of(values, labels, predictions.n_classes, start))
        if predictions.has_every_class:
            other = _differ(values[:, np.arange(len(labels)), labels], true_classes.read(start, stop)[0])
            new = other.any(axis=1) & (first_other < 0)
            if new.any():
                first_other[new] = start + other[new].argmax(axis=1)
    return joined_ranges(parts), first_other


def _differ(values: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Where two precisions' numbers are not the same but for the rounding of the coarser."""
    coarser = max((np.finfo(array.dtype) for array in (values, others)), key=lambda precision: float(precision.eps))
    return ~np.isclose(
        values.astype(np.float64),
        others.astype(np.float64),
        rtol=float(coarser.eps),
        atol=float(coarser.smallest_subnormal),
        equal_nan=True,
    )


def _refuse_other_true_classes(first_other: IntArray, places: list[str], diverged: Container[int]) -> None:
    for model, place in enumerate(places):
        if model not in diverged and first_other[model] >= 0:
            raise SelectionError(
                "a true-class probability is not that of the sample's label",
                where=f"{place}, sample {first_other[model]}",
                found="`true_class_probability` and `probabilities` differ",
                expected="the same number in both",
                hint="write the cache with ensembleflow.library.create_predictions, which derives one from the other",
            )
