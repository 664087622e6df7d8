"""Splitting labelled images by class, the same way each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ensembleflow.errors import DatasetError

__all__ = ["check_every_class_in_every_split", "stratified_split"]

_MAX_CLASSES_TOLD = 20


def stratified_split(
    labels: NDArray[np.int64], fractions: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Split images at random so that each class has its share in each split.

    Args:
        labels: (n_images,) class of each image.
        fractions: share of each split but `train`, which gets what is left; their sum is below 1.
        seed: the same seed gives the same split.

    Returns:
        For `train` and each name in `fractions`, indices into `labels`, int64. They are disjoint and
        complete; a class of n images has n · fraction of them in a split, rounded to the nearest. Their
        order is shuffled, so that the first images of a split are a fair sample of it.
    """
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("train", *fractions)}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(members)
        start = 0
        for name, fraction in fractions.items():
            stop = start + int(len(members) * fraction + 0.5)
            parts[name].append(shuffled[start:stop])
            start = stop
        parts["train"].append(shuffled[start:])
    order = np.random.default_rng([seed, len(labels), len(parts)])
    empty = np.empty(0, dtype=np.int64)
    return {name: order.permutation(np.concatenate([empty, *members])) for name, members in parts.items()}


def check_every_class_in_every_split(
    labels: NDArray[np.int64], class_names: Sequence[str], splits: Mapping[str, NDArray[np.int64]]
) -> None:
    """Refuse a split that a class is absent from: nothing could be learnt or measured of it.

    Raises:
        DatasetError: names the absent classes (the first of many), the splits that each is absent from, and the number
            of its images.
    """
    totals = np.bincount(labels, minlength=len(class_names))
    absent: dict[int, list[str]] = {}
    for split, indices in splits.items():
        for label in np.flatnonzero(np.bincount(labels[indices], minlength=len(class_names)) == 0):
            absent.setdefault(int(label), []).append(split)
    if absent:
        named = [
            f"{class_names[label]} ({totals[label]} images) is not in {' and '.join(names)}"
            for label, names in sorted(absent.items())
        ]
        more = [f"and {len(named) - _MAX_CLASSES_TOLD} classes more"] if len(named) > _MAX_CLASSES_TOLD else []
        raise DatasetError(
            "classes are absent from a split",
            where="; ".join([*named[:_MAX_CLASSES_TOLD], *more]),
            expected="every class in train, valid and test",
            hint="give these classes more images, leave them out, or raise dataset.valid_fraction or "
            "dataset.test_fraction",
        )
