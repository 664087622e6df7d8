"""Splitting images whose groups must stay whole: crops of one slide, photographs of one specimen."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.some import some
from ensembleflow.errors import DatasetError

__all__ = ["check_groups_are_whole", "joined", "split_whole_groups", "warn_of_shares", "with_groups"]

_LOG = logging.getLogger(__name__)


def split_whole_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], fractions: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Split images at random, each group whole, so that each class has about its share in each split.

    Groups are placed one after the other, those first that hold the largest share of some class, each where the
    classes' shares are then nearest to the wanted ones (the least sum of squared deviations over the share).
    A class that has no more groups left than splits that lack it goes to one of these.

    Args:
        labels: (n_images,) class of each image.
        groups: (n_images,) equal for images of one group, which may have several classes.
        fractions: share of each split but `train`, which gets what is left; their sum is below 1.
        seed: the same seed gives the same split.

    Returns:
        For `train` and each name in `fractions`, indices into `labels`, int64, shuffled; disjoint and complete.
    """
    names = ("train", *fractions)
    if not len(labels):
        return {name: np.empty(0, np.int64) for name in names}
    shares = np.array([1 - sum(fractions.values()), *fractions.values()])
    _, group_of = np.unique(groups, return_inverse=True)
    _, class_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1))
    np.add.at(counts, (group_of.reshape(-1), class_of.reshape(-1)), 1)
    counts_of_classes = counts / counts.sum(axis=0)  # so that rare classes count as frequent ones do
    random = np.random.default_rng([seed, len(labels), len(names)])
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts_of_classes[order].max(axis=1), kind="stable")]
    n_left = np.count_nonzero(counts, axis=0)  # groups that hold the class and are not placed
    placed = np.zeros((len(names), counts.shape[1]))
    part_of = np.empty(len(counts), np.int64)
    for group in order:
        own = counts[group] > 0
        lacking = placed == 0
        urgent = own & (n_left <= lacking.sum(axis=0))
        cost = (counts_of_classes[group] * (counts_of_classes[group] + 2 * (placed - shares[:, None]))).sum(axis=1)
        n_urgent = (lacking & urgent).sum(axis=1)
        part_of[group] = np.lexsort((placed.sum(axis=1) / shares, cost / shares, -n_urgent))[0]
        placed[part_of[group]] += counts_of_classes[group]
        n_left[own] -= 1
    parts = part_of[group_of.reshape(-1)]
    return {name: random.permutation(np.flatnonzero(parts == part)) for part, name in enumerate(names)}


def joined(*groupings: NDArray[np.generic]) -> NDArray[np.int64]:
    """Int64 (n_images,), equal for images that are together in any of the groupings, directly or by way of others."""
    from scipy.sparse import coo_matrix  # scikit-learn brings it along
    from scipy.sparse.csgraph import connected_components

    n_images = len(groupings[0])
    links = [np.unique(grouping, return_index=True, return_inverse=True)[1:] for grouping in groupings]
    ends = np.concatenate([first[inverse.reshape(-1)] for first, inverse in links])
    starts = np.tile(np.arange(n_images), len(groupings))
    graph = coo_matrix((np.ones(len(ends), np.int8), (starts, ends)), shape=(n_images, n_images))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def with_groups(images: LabelledImages, pattern: str) -> LabelledImages:
    """The same images, each in the group that its name tells.

    Args:
        images: the images, with names such as `oak/slide12_crop3.png`.
        pattern: a regular expression, searched for in the name; the group is the text of its first pair of parentheses
            that takes part, or of the whole match. An image whose name does not match is told, and a group of its own.

    Raises:
        DatasetError: no two images are of one group.
    """
    names = [images.name(index) for index in range(len(images.labels))]
    found = [_group_in(re.search(pattern, name)) for name in names]
    alone = [name for name, group in zip(names, found, strict=True) if not group]
    if len(set(found) - {""}) in (0, len(names) - len(alone)):
        raise DatasetError(
            "no two images are of one group",
            where="dataset.group_pattern",
            found=f"{pattern}: {len(names) - len(alone)} of {len(names)} names match",
            expected=f"a regular expression that finds what images of a group share in their names, as in {names[0]}",
        )
    if alone:
        told = (len(alone), len(names), some(alone))
        _LOG.warning("dataset.group_pattern: %d of %d images are groups of their own, as no group is found: %s", *told)
    groups = [group if group else f"\0{name}" for name, group in zip(names, found, strict=True)]
    return replace(images, groups=np.array(groups, dtype=np.str_))


def _group_in(match: re.Match[str] | None) -> str:
    """The text of the first pair of parentheses that took part, or of the whole match; "" where there is none."""
    if match is None:
        return ""
    return next(filter(None, match.groups()), "") if match.re.groups else match[0]


def check_groups_are_whole(groups: NDArray[np.str_], splits: Mapping[str, NDArray[np.int64]], where: str) -> None:
    """Refuse parts that share a group: the error on one would be that of images known from another.

    Args:
        groups: (n_images,) group of each image.
        splits: for each part the indices of its images.
        where: the source, for the message.

    Raises:
        DatasetError: names such groups, the first of many, with their parts.
    """
    parts_of: dict[str, list[str]] = {}
    for part, indices in splits.items():
        for group in np.unique(groups[indices]).tolist():
            parts_of.setdefault(group, []).append(part)
    torn = [
        f"{group.lstrip(chr(0))} (in {' and '.join(parts)})"
        for group, parts in sorted(parts_of.items())
        if len(parts) > 1
    ]
    if torn:
        raise DatasetError(
            "groups stand in two parts",
            where=where,
            found=f"{len(torn)} groups: {some(torn)}",
            expected="all images of a group in one part",
            hint="leave the parts out of the source, so that the groups are split whole, or move these images",
        )


def warn_of_shares(
    groups: NDArray[np.str_], splits: Mapping[str, NDArray[np.int64]], wanted: Mapping[str, float]
) -> None:
    """Tell parts whose share of the images is far from the wanted one, since groups stay whole.

    Args:
        groups: (n_images,) group of each image.
        splits: for each part the indices of its images.
        wanted: the share of each part that was cut, of all of them together.
    """
    sizes = {part: len(splits[part]) for part in wanted}
    total = sum(sizes.values())
    far = [part for part, share in wanted.items() if total and not 0.5 <= sizes[part] / total / share <= 2]
    if far:
        together = np.concatenate([splits[part] for part in wanted])
        names, counts = np.unique(groups[together], return_counts=True)
        told = ", ".join(f"{part} {sizes[part] / total:.0%} instead of {share:.0%}" for part, share in wanted.items())
        largest = str(names[counts.argmax()]).lstrip("\0")
        _LOG.warning(
            "groups stay whole, so parts are of other sizes: %s; the largest, %s, has %d of %d images",
            told,
            largest,
            counts.max(),
            total,
        )
