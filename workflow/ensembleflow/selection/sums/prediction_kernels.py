"""Compiled counts of predicted classes: what the error and the macro-F1 error are made of.

The highest values of an ensemble and of a candidate decide most samples, so these are kept at hand; only the rest read
all classes. See `kernels` for how ensembles and stored probabilities are handed over.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ensembleflow.selection.sums.compiled import compiled
from ensembleflow.selection.sums.kernels import chunk_of_classes, widen
from ensembleflow.selection.sums.stored import N_HIGHEST

__all__ = ["count_predictions", "highest_classes"]


@compiled()
def _insert(value: Any, k: Any, values: Any, classes: Any) -> None:  # pragma: no cover - compiled
    # Into a descending list; of equal values the one that came first, the lower class, stays in front.
    if value <= values[-1]:
        return
    place = len(values) - 1
    while place > 0 and value > values[place - 1]:
        values[place], classes[place] = values[place - 1], classes[place - 1]
        place -= 1
    values[place], classes[place] = value, k


@compiled()
def highest_classes(stored: Any, values: Any, classes: Any) -> None:  # pragma: no cover - compiled
    """Find each sample's `N_HIGHEST` highest probabilities, in descending order, and their classes.

    Args:
        stored: probabilities (models, samples, classes), of more than `N_HIGHEST` classes.
        values: as `stored` (models, samples, N_HIGHEST), written.
        classes: integers (models, samples, N_HIGHEST), written.
    """
    highest, places = np.empty(N_HIGHEST), np.empty(N_HIGHEST, np.int64)
    for model in range(stored.shape[0]):
        for sample in range(stored.shape[1]):
            highest[:] = -np.inf
            places[:] = 0
            for k in range(stored.shape[2]):
                _insert(widen(stored[model, sample, k]), k, highest, places)
            for j in range(N_HIGHEST):
                values[model, sample, j] = stored[model, sample, places[j]]
                classes[model, sample, j] = places[j]


@compiled()
def count_predictions(
    stored: Any,
    labels: Any,
    values: Any,
    classes: Any,
    slack: float,
    offsets: Any,
    members: Any,
    candidates: Any,
    sums: Any,
) -> None:  # pragma: no cover - compiled
    """Count what each prefix predicts with each candidate.

    The predicted class is that of the highest summed probability, the lowest of equal ones. That the highest values
    decide is exact, since rounding is monotonic: no sum of two smaller numbers rounds to more than the sum of two
    larger ones.

    Args:
        stored: probabilities (models, samples, classes).
        labels: int64 (samples,).
        values: of `highest_classes`; not read where there are no more than `N_HIGHEST` classes.
        classes: likewise.
        slack: no probability is below minus this.
        offsets: as for `cross_entropy_sums`.
        members: likewise.
        candidates: likewise.
        sums: float64 (prefixes, candidates, terms), added to. With one term the wrong predictions; with more the right
            ones of each class, then all of each class.
    """
    _, n_samples, n_classes = stored.shape
    by_class = sums.shape[2] > 1
    few_classes = n_classes <= N_HIGHEST
    chunk = chunk_of_classes(n_classes)
    total = np.empty((chunk, n_classes))
    total_values, total_classes = np.empty((chunk, N_HIGHEST)), np.zeros((chunk, N_HIGHEST), np.int64)
    for start in range(0, n_samples, chunk):
        length = min(chunk, n_samples - start)
        for prefix in range(len(offsets) - 1):
            total[:] = 0.0
            for member in members[offsets[prefix] : offsets[prefix + 1]]:
                for i in range(length):
                    for k in range(n_classes):
                        total[i, k] += widen(stored[member, start + i, k])
            if not few_classes:
                total_values[:] = -np.inf
                for i in range(length):
                    for k in range(n_classes):
                        _insert(total[i, k], k, total_values[i], total_classes[i])
            for place in range(len(candidates)):
                model = candidates[place]
                n_wrong = 0
                for i in range(length):
                    sample = start + i
                    if few_classes:
                        winner = _first_of_few(total, i, stored, model, sample)
                    else:
                        # Most samples end here: a call would cost more than these comparisons.
                        winner = -1
                        a, b = total_classes[i, 0], np.int64(classes[model, sample, 0])
                        high, low = widen(values[model, sample, 0]), widen(values[model, sample, 1])
                        if a == b:
                            if total_values[i, 0] + high > total_values[i, 1] + low:
                                winner = a
                        elif total[i, b] + high > total_values[i, 0] + low:
                            winner = b
                        elif total_values[i, 0] - slack > max(total_values[i, 1] + high, total[i, b] + high):
                            winner = a
                        if winner < 0:
                            winner = _quick_prediction(
                                total, total_values, total_classes, i, stored, values, classes, model, sample, slack
                            )
                        if winner < 0:
                            winner = _full_prediction(total, i, stored, model, sample)
                    right = winner == labels[sample]
                    n_wrong += not right
                    if by_class:
                        sums[prefix, place, winner] += right
                        sums[prefix, place, n_classes + winner] += 1
                if not by_class:
                    sums[prefix, place, 0] += n_wrong


@compiled()
def _first_of_few(total: Any, i: int, stored: Any, model: int, sample: int) -> Any:  # pragma: no cover - compiled
    best, winner = total[i, 0] + widen(stored[model, sample, 0]), 0
    for k in range(1, total.shape[1]):
        value = total[i, k] + widen(stored[model, sample, k])
        if value > best:
            best, winner = value, k
    return winner


@compiled()
def _quick_prediction(
    total: Any,
    total_values: Any,
    total_classes: Any,
    i: int,
    stored: Any,
    values: Any,
    classes: Any,
    model: int,
    sample: int,
    slack: float,
) -> Any:  # pragma: no cover - compiled
    """The class of the highest sum, or -1 if the highest values of both do not settle it."""
    last = N_HIGHEST - 1
    others = widen(values[model, sample, last])
    # Exact sums of the candidate's highest classes but the last.
    best, best_class = -np.inf, np.int64(-1)
    for j in range(last):
        k = np.int64(classes[model, sample, j])
        value = total[i, k] + widen(values[model, sample, j])
        if value > best or (value == best and k < best_class):
            best, best_class = value, k
    # The ensemble's two highest classes that are not among them; the first is always there.
    first, second = -1, -1
    for place in range(N_HIGHEST):
        k = total_classes[i, place]
        known = False
        for j in range(last):
            known = known or classes[model, sample, j] == k
        if not known:
            if first < 0:
                first = place
            else:
                second = place
                break
    if best > total_values[i, first] + others:
        return best_class
    if second < 0:
        return -1
    limit = total_values[i, second] + others
    lowest = total_values[i, first] - slack
    if lowest > best and lowest > limit:
        return total_classes[i, first]
    k = total_classes[i, first]
    value = total_values[i, first] + widen(stored[model, sample, k])
    if value > best or (value == best and k < best_class):
        best, best_class = value, k
    return best_class if best > limit else -1


@compiled()
def _full_prediction(total: Any, i: int, stored: Any, model: int, sample: int) -> Any:  # pragma: no cover - compiled
    highest = _highest_sum(total, i, stored, model, sample)
    for k in range(total.shape[1]):
        if total[i, k] + widen(stored[model, sample, k]) == highest:
            return k
    return -1


@compiled(fastmath={"nnan", "nsz"})
def _highest_sum(total: Any, i: int, stored: Any, model: int, sample: int) -> float:  # pragma: no cover - compiled
    # Without NaN the order of comparisons does not matter, so the compiler may take several at once.
    highest = -np.inf
    for k in range(total.shape[1]):
        value = total[i, k] + widen(stored[model, sample, k])
        highest = value if value > highest else highest
    return highest
