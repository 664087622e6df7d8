"""Labels as users write them, to places in a list of class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.some import some
from ensembleflow.errors import DatasetError

__all__ = ["classes_of_labels"]


def classes_of_labels(
    labels: Sequence[tuple[str, NDArray[Any]]], class_names: tuple[str, NDArray[Any]] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Places in the class names for labels that are integers or texts.

    With class names, integer labels are places in them, and texts are among them. Without, each value that occurs is
    a class of that name, in ascending order: 0 … n-1 stay what they are, and 1 … n, or texts, need no renumbering.
    Truth values are 0 and 1.

    Args:
        labels: for each array of labels, where it stands and what it holds, shape (n,) or (n, 1).
        class_names: where the names stand, and the names, shape (classes,); or None.

    Returns:
        The labels of all arrays one after the other, int64 (n,), and the class names.

    Raises:
        DatasetError: labels are of another shape or type, negative, or not among the class names; class names are no
            texts, empty, or twice the same; there are fewer than two classes.
    """
    flat = [_flat(where, values) for where, values in labels]
    if len({_is_text(values) for values in flat}) > 1:
        raise DatasetError(
            "some labels are numbers and some are texts",
            where=" and ".join(where for where, _ in labels),
            expected="labels of one kind",
        )
    together = np.concatenate([values.astype(np.str_ if _is_text(values) else np.int64) for values in flat])
    where = labels[0][0]
    if not _is_text(together) and len(together) and together.min() < 0:
        raise DatasetError(
            "a label is negative",
            where=where,
            found=some(np.unique(together[together < 0])),
            expected="labels from 0",
            hint="if it marks images without a class, leave these images out",
        )
    if class_names is None:
        names = tuple(str(value) for value in np.unique(together))
    else:
        where, names = class_names[0], _names(*class_names)
    if len(names) < 2:
        raise DatasetError(
            "the images are of fewer than two classes",
            where=where,
            found=f"classes: {', '.join(names) or 'none'}",
            expected="two classes or more",
        )
    if class_names is None:
        return np.unique(together, return_inverse=True)[1].reshape(-1).astype(np.int64), names
    return _places(together, names, labels[0][0]), names


def _is_text(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "U"


def _flat(where: str, values: NDArray[Any]) -> NDArray[Any]:
    """Labels of shape (n,), integers or texts."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    found = f"{values.dtype} array {values.shape}"
    if values.ndim != 1:
        one_hot = values.ndim == 2 and values.shape[1] > 1
        raise DatasetError(
            "labels have another shape",
            where=where,
            found=found,
            expected="one label an image, shape (n,) or (n, 1)",
            hint="if they are one-hot: labels.argmax(axis=1)" if one_hot else None,
        )
    if values.dtype.kind in "SO":
        values = _decoded(where, values)
    if values.dtype.kind not in "iubU":
        raise DatasetError(
            "labels are neither whole numbers nor texts",
            where=where,
            found=found,
            expected="integers or texts",
            hint="labels.astype('int64'), if they are whole numbers" if values.dtype.kind == "f" else None,
        )
    return values


def _decoded(where: str, values: NDArray[Any]) -> NDArray[np.str_]:
    try:
        texts = [value.decode("utf-8") if isinstance(value, bytes) else value for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise DatasetError("texts are not in UTF-8", where=where, found=error) from None
    if not all(isinstance(text, str) for text in texts):
        raise DatasetError("values are neither whole numbers nor texts", where=where, found=f"{values.dtype} array")
    return np.array(texts, dtype=np.str_)


def _names(where: str, values: NDArray[Any]) -> tuple[str, ...]:
    if values.ndim == 1 and values.dtype.kind in "SO":
        values = _decoded(where, values)
    expected = "one text a class, shape (classes,)"
    if values.ndim != 1 or not _is_text(values):
        found = f"{values.dtype} array {values.shape}"
        raise DatasetError("class names have another shape or type", where=where, found=found, expected=expected)
    names = tuple(str(value) for value in values)
    if "" in names:
        raise DatasetError("a class has no name", where=where, found=f"name {names.index('')} is empty")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise DatasetError("class names stand twice", where=where, found=", ".join(repeated), expected="distinct names")
    return names


def _places(labels: NDArray[Any], names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Each label's place in the names."""
    if _is_text(labels):
        values, inverse = np.unique(labels, return_inverse=True)
        place_of = {name: place for place, name in enumerate(names)}
        foreign = [str(value) for value in values if str(value) not in place_of]
        expected = f"one of the {len(names)} class_names"
        places = np.array([place_of.get(str(value), -1) for value in values], dtype=np.int64)[inverse.reshape(-1)]
    else:
        foreign = [str(value) for value in np.unique(labels[labels >= len(names)])]
        expected = f"0 to {len(names) - 1}, for there are {len(names)} class_names"
        places = labels
    if foreign:
        raise DatasetError("labels have no class name", where=where, found=some(foreign), expected=expected)
    return places
