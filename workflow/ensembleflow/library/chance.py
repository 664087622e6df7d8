"""Telling networks that have learned something from those at chance, as far as their validation metrics tell."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["SIGNIFICANCE", "are_at_chance"]

# Of networks that answer at random, so many pass each of the two tests by luck.
SIGNIFICANCE = 0.01

# Metrics are computed in float32: a constant answer's cross-entropy may come out lower than it is.
_RELATIVE_ROUNDING = 1e-5


def are_at_chance(
    errors: npt.ArrayLike,
    macro_f1_errors: npt.ArrayLike,
    cross_entropies: npt.ArrayLike,
    labels: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Whether each network is no better than an answer that ignores the image, by all of its metrics.

    - Error: it is right about no more images than always answering the largest class may be by luck, in a one-sided
      exact binomial test at 1 %.
    - Macro-F1 error: its mean F1 score is within luck of 1 / classes, the highest that such answers expect (those in
      the classes' shares reach it), at 1 % of the normal distribution; their variance is
      (classes - 1) / (classes² (images - 1)), by permutation of the labels.
    - Cross-entropy: it is not below that of always answering the classes' shares, the lowest of a constant answer.

    One alone misjudges: where a class is large or images are few, the error says little; a network that was trained
    with class weights gives up right answers and likelihood for the small classes; one that is right but too sure has
    a high cross-entropy.

    Args:
        errors: validation errors, 0 to 1 (networks,).
        macro_f1_errors: 1 - mean F1 score of the same answers (networks,).
        cross_entropies: mean natural logarithms of the same answers (networks,).
        labels: the validation part's classes (images,).

    Returns:
        Of each network (networks,). A metric that is NaN is no better than chance; without an error, or of images of
        one class, nothing can be told and it is False.
    """
    from scipy.stats import binom, norm  # scikit-learn brings it along

    error, f1_error, cross_entropy = (
        np.asarray(each, dtype=float) for each in (errors, macro_f1_errors, cross_entropies)
    )
    n_images, class_sizes = len(labels), np.unique(labels, return_counts=True)[1]
    n_classes, shares = len(class_sizes), class_sizes / n_images
    if n_classes < 2:
        return np.zeros(len(error), dtype=bool)
    n_right = np.rint((1 - error) * n_images)
    by_luck = binom.sf(n_right - 1, n_images, shares.max()) > SIGNIFICANCE
    f1_by_luck = (1 + norm.isf(SIGNIFICANCE) * math.sqrt((n_classes - 1) / (n_images - 1))) / n_classes
    lowest = -float(np.sum(shares * np.log(shares))) * (1 - _RELATIVE_ROUNDING)
    return np.asarray(by_luck & ~(1 - f1_error > f1_by_luck) & ~(cross_entropy < lowest))
