"""What a first pass over the stored probabilities finds: broken values, and models that ignore their input."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import SelectionError
from ensembleflow.models.tolerances import OUTSIDE_BY, sum_off_by
from ensembleflow.selection.sums.stored import stored_for_kernels

__all__ = ["Ranges", "joined_ranges", "not_finite_reasons", "ranges_of", "refuse_bad_sums", "refuse_outside"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# A model whose probabilities vary less than this over all samples ignores its input: it has diverged.
_CONSTANT_WITHIN = 1e-6


@dataclass(frozen=True)
class Ranges:
    """The values' ranges, over all samples.

    Attributes:
        lowest: float64 (models, groups), a group being the samples of one label, or one class's probabilities.
        highest: likewise.
        first_not_finite: the first sample with such a value, or -1: int64 (models,).
        first_outside: the first sample with a value outside 0 … 1, or -1.
        first_bad_sum: the first sample whose probabilities do not add up to 1, or -1; always -1 of true classes.
    """

    lowest: FloatArray
    highest: FloatArray
    first_not_finite: IntArray
    first_outside: IntArray
    first_bad_sum: IntArray

    def constant(self, model: int) -> bool:
        """Whether the model gives the same values for every sample of each group."""
        seen = self.lowest[model] <= self.highest[model]
        return bool((self.highest[model, seen] - self.lowest[model, seen] <= _CONSTANT_WITHIN).all())


def ranges_of(values: npt.NDArray[Any], labels: IntArray, n_classes: int, first_sample: int) -> Ranges:
    """The ranges of some samples' stored values.

    Args:
        values: (models, samples[, classes]), as a source gives them.
        labels: int64 (samples,).
        n_classes: classes.
        first_sample: the number of the first of these samples.
    """
    from ensembleflow.selection.sums import check_kernels

    n_models = len(values)
    shape = (n_models, n_classes)
    ranges = Ranges(
        np.full(shape, np.inf), np.full(shape, -np.inf), *(np.full(n_models, -1, dtype=np.int64) for _ in range(3))
    )
    stored = stored_for_kernels(values)
    found = (ranges.lowest, ranges.highest, ranges.first_not_finite, ranges.first_outside)
    if values.ndim == 3:
        check_kernels.class_ranges(
            stored, first_sample, OUTSIDE_BY, sum_off_by(values.dtype), *found, ranges.first_bad_sum
        )
    else:
        check_kernels.true_class_ranges(stored, labels, first_sample, OUTSIDE_BY, *found)
    return ranges


def joined_ranges(parts: Iterable[Ranges]) -> Ranges:
    """The ranges of all samples, from those of consecutive runs of samples, in order."""
    whole, *rest = parts
    for part in rest:
        firsts = (
            np.where(mine >= 0, mine, others)
            for mine, others in (
                (whole.first_not_finite, part.first_not_finite),
                (whole.first_outside, part.first_outside),
                (whole.first_bad_sum, part.first_bad_sum),
            )
        )
        whole = Ranges(np.minimum(whole.lowest, part.lowest), np.maximum(whole.highest, part.highest), *firsts)
    return whole


def not_finite_reasons(first_not_finite: IntArray, split: str = "valid") -> dict[int, str]:
    """Index to reason of the models with values that are not finite.

    Args:
        first_not_finite: the first sample with such a value, or -1: int64 (models,).
        split: named in the reason where it is not validation.
    """
    whose = "" if split == "valid" else f"{split} "
    return {
        int(model): f"{whose}probabilities that are not finite, first at sample {first_not_finite[model]}"
        for model in np.flatnonzero(first_not_finite >= 0)
    }


def refuse_outside(ranges: Ranges, places: Sequence[str], diverged: Container[int]) -> None:
    """Refuse values that are negative or above 1.

    Args:
        ranges: of all samples.
        places: what a message calls each model's values.
        diverged: models that are left out anyway.

    Raises:
        SelectionError: such a value is there.
    """
    for model, sample in _found(ranges.first_outside, diverged):
        raise SelectionError(
            "a probability is outside 0 … 1",
            where=f"{places[model]}, sample {sample}",
            found=f"this model's values lie in {ranges.lowest[model].min():g} … {ranges.highest[model].max():g}",
            expected="class probabilities",
            hint="cache a softmax's probabilities, not its logits",
        )


def refuse_bad_sums(ranges: Ranges, places: Sequence[str], diverged: Container[int]) -> None:
    """Refuse samples whose probabilities do not add up to 1.

    Args:
        ranges: of all samples.
        places: what a message calls each model's values.
        diverged: models that are left out anyway.

    Raises:
        SelectionError: such a sample is there.
    """
    for model, sample in _found(ranges.first_bad_sum, diverged):
        raise SelectionError(
            "the probabilities of a sample do not add up to 1",
            where=f"{places[model]}, sample {sample}",
            expected="1, within the storage's rounding",
            hint="cache a softmax's probabilities; one sigmoid a class is no distribution",
        )


def _found(first_samples: IntArray, diverged: Container[int]) -> Iterable[tuple[int, int]]:
    return ((model, int(sample)) for model, sample in enumerate(first_samples) if sample >= 0 and model not in diverged)
