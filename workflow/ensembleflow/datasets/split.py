"""Splitting labelled images by class, the same way each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ensembleflow.errors import DatasetError

__all__ = ["check_every_class_in_every_split", "grouped_split", "stratified_part", "stratified_split"]

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


def grouped_split(
    labels: NDArray[np.int64], contents: NDArray[np.uint64], fractions: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """`stratified_split` of the distinct images; the copies of each go where it goes.

    Args:
        labels: (n_images,) class of each image.
        contents: (n_images,) equal for images that are to stay together.
        fractions: share of the distinct images of each split but `train`.
        seed: the same seed gives the same split, and without copies that of `stratified_split`.

    Returns:
        For `train` and each name in `fractions`, indices into `labels`; copies follow the image that they are of.
    """
    _, first, groups = np.unique(contents, return_index=True, return_inverse=True)
    distinct = np.sort(first)
    # Images by the place of their group's first image, copies behind it.
    by_group = np.lexsort((np.arange(len(labels)), first[groups.reshape(-1)]))
    starts = np.searchsorted(first[groups.reshape(-1)][by_group], distinct)
    stops = np.append(starts[1:], len(labels))
    splits = stratified_split(labels[distinct], fractions, seed)
    empty = np.empty(0, dtype=np.int64)
    return {
        name: np.concatenate([empty, *(by_group[starts[place] : stops[place]] for place in places)])
        for name, places in splits.items()
    }


def stratified_part(labels: NDArray[np.int64], shuffled: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The first n of shuffled images, class by class, each class by its share and with one image at least.

    Images are ranked by their place among their class's images, divided by the class's size; the n first of that order
    are kept. So a class has its share to within one image, and a smaller part lies within a larger one.

    Args:
        labels: (n_images,) class of each image.
        shuffled: indices into `labels`, int64, in random order.
        n: how many to keep.

    Returns:
        The indices that are kept, in the order in which they stood.

    Raises:
        DatasetError: there are fewer images than n, or more classes.
    """
    classes = labels[shuffled]
    n_classes = len(np.unique(classes))
    if not n_classes <= n <= len(shuffled):
        raise DatasetError(
            "the number of training images cannot be had",
            where="dataset.train_images",
            found=n,
            expected=f"{n_classes} (the classes) to {len(shuffled)} (the images that are left for training)",
            hint="null takes all",
        )
    rank = np.empty(len(shuffled))
    for label in np.unique(classes):
        places = np.flatnonzero(classes == label)
        # The first image of each class comes before any second one.
        rank[places] = np.arange(len(places)) / len(places)
    return shuffled[np.sort(np.argsort(rank, kind="stable")[:n])]


def check_every_class_in_every_split(
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    splits: Mapping[str, NDArray[np.int64]],
    groups: NDArray[np.str_] | None = None,
) -> None:
    """Refuse a split that a class is absent from: nothing could be learnt or measured of it.

    Args:
        labels: (n_images,) class of each image.
        class_names: the classes' names.
        splits: for each part the indices of its images.
        groups: (n_images,) what may not be torn apart; None without groups.

    Raises:
        DatasetError: names the absent classes (the first of many), the splits that each is absent from, and the number
            of its images.
    """
    totals = np.bincount(labels, minlength=len(class_names))

    def of_groups(label: int) -> str:
        if groups is None:
            return ""
        n_groups = len(np.unique(groups[labels == label]))
        return f" of {n_groups} group{'s' if n_groups > 1 else ''}"

    absent: dict[int, list[str]] = {}
    for split, indices in splits.items():
        for label in np.flatnonzero(np.bincount(labels[indices], minlength=len(class_names)) == 0):
            absent.setdefault(int(label), []).append(split)
    if absent:
        named = [
            f"{class_names[label]} ({totals[label]} images{of_groups(label)}) is not in {' and '.join(names)}"
            for label, names in sorted(absent.items())
        ]
        more = [f"and {len(named) - _MAX_CLASSES_TOLD} classes more"] if len(named) > _MAX_CLASSES_TOLD else []
        raise DatasetError(
            "classes are absent from a split",
            where="; ".join([*named[:_MAX_CLASSES_TOLD], *more]),
            expected="every class in train, valid and test",
            hint="give these classes more images, leave them out, or raise dataset.valid_fraction or "
            "dataset.test_fraction"
            if groups is None
            else "give these classes images of three groups or more, or leave them out",
        )
