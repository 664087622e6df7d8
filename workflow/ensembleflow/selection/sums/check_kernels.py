"""Compiled passes over the stored probabilities that find broken values and each model's range."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensembleflow.selection.sums.compiled import compiled
from ensembleflow.selection.sums.kernels import widen

__all__ = ["class_ranges", "true_class_ranges"]


@compiled()
def true_class_ranges(
    stored: Any, labels: Any, start: int, outside_by: float, lowest: Any, highest: Any, not_finite: Any, outside: Any
) -> None:  # pragma: no cover - compiled
    """Widen each model's range of the true class's probability, and note its first broken values.

    Args:
        stored: the true class's probabilities (models, samples), as of `stored_for_kernels`.
        labels: int64 (samples,).
        start: the number of the first of these samples.
        outside_by: how far below 0 or above 1 a value may lie.
        lowest: float64 (models, classes), written; so is `highest`.
        highest: as `lowest`.
        not_finite: int64 (models,), the first sample with such a value, or -1; written. So is `outside`.
        outside: as `not_finite`.
    """
    for model in range(stored.shape[0]):
        for sample in range(stored.shape[1]):
            value = widen(stored[model, sample])
            group = labels[sample]
            # What lies between what was seen before needs no further look, and is the rule.
            if lowest[model, group] <= value <= highest[model, group]:
                continue
            if not np.isfinite(value):
                if not_finite[model] < 0:
                    not_finite[model] = start + sample
                continue
            if (value < -outside_by or value > 1 + outside_by) and outside[model] < 0:
                outside[model] = start + sample
            lowest[model, group] = min(lowest[model, group], value)
            highest[model, group] = max(highest[model, group], value)


@compiled()
def class_ranges(
    stored: Any,
    start: int,
    outside_by: float,
    sum_off_by: float,
    lowest: Any,
    highest: Any,
    not_finite: Any,
    outside: Any,
    bad_sum: Any,
) -> None:  # pragma: no cover - compiled
    """The same of the probabilities of every class (models, samples, classes), whose sums are checked as well.

    Args:
        stored: as of `stored_for_kernels`.
        start: the number of the first of these samples.
        outside_by: how far below 0 or above 1 a value may lie.
        sum_off_by: how far from 1 a sample's sum may lie.
        lowest: float64 (models, classes), written; so is `highest`.
        highest: as `lowest`.
        not_finite: int64 (models,), the first sample with such a value, or -1; written, as are the next two.
        outside: as `not_finite`.
        bad_sum: as `not_finite`.
    """
    n_models, n_samples, n_classes = stored.shape
    for model in range(n_models):
        for sample in range(n_samples):
            total = 0.0
            for k in range(n_classes):
                value = widen(stored[model, sample, k])
                total += value
                lowest[model, k] = min(lowest[model, k], value)
                highest[model, k] = max(highest[model, k], value)
                if (value < -outside_by or value > 1 + outside_by) and outside[model] < 0:
                    outside[model] = start + sample
            if not np.isfinite(total):
                if not_finite[model] < 0:
                    not_finite[model] = start + sample
            elif abs(total - 1) > sum_off_by and bad_sum[model] < 0:
                bad_sum[model] = start + sample
