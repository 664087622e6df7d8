"""Checking what a Python caller gives to a public function, so that a slip is one message instead of a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ensembleflow.errors import ArgumentError

__all__ = [
    "array",
    "file_path",
    "image_shape",
    "instance",
    "items",
    "mapping",
    "one_of",
    "paths",
    "shape",
    "text",
    "texts",
    "whole_number",
]

_LONGEST_FOUND = 80
_T = TypeVar("_T")


def _refused(argument: str, value: object, expected: str) -> ArgumentError:
    told = repr(value)
    short = told if len(told) <= _LONGEST_FOUND else f"{told[:_LONGEST_FOUND]}…"
    return ArgumentError(
        "a function cannot take an argument",
        where=argument,
        found=" ".join(f"{type(value).__name__}: {short}".split()),
        expected=expected,
    )


def file_path(argument: str, value: object) -> Path:
    """A path, given as text or as a path."""
    if isinstance(value, str | os.PathLike):
        given = os.fspath(value)
        if isinstance(given, str) and "\0" not in given:
            return Path(given)
    raise _refused(argument, value, "a path, text or pathlib.Path")


def text(argument: str, value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise _refused(argument, value, "a text")
    return str(value)


def items(argument: str, values: object, expected: str) -> list[Any]:
    """The items of a list, an array or the like; a text or a mapping is none, though Python would go through it."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise _refused(argument, values, expected)
    try:
        return list(values)
    except TypeError:  # an array of no dimension
        raise _refused(argument, values, expected) from None


def texts(argument: str, values: object) -> list[str]:
    """A list of texts."""
    listed = items(argument, values, "a list of texts")
    for place, each in enumerate(listed):
        if not isinstance(each, str):
            raise _refused(f"{argument}[{place}]", each, "a text")
    return [str(each) for each in listed]


def mapping(argument: str, value: object, keys: Sequence[str]) -> Mapping[str, Any]:
    """A mapping that has all these keys."""
    expected = f"a mapping with {' and '.join(keys)}"
    if not isinstance(value, Mapping):
        raise _refused(argument, value, expected)
    missing = [key for key in keys if key not in value]
    if missing:
        raise ArgumentError(
            "a function cannot take an argument",
            where=argument,
            found=f"no {', no '.join(missing)}; there is {', '.join(map(str, value)) or 'nothing'}",
            expected=expected,
        )
    return value


def one_of(argument: str, value: object, choices: Sequence[str]) -> str:
    """One of a few texts."""
    if not isinstance(value, str) or value not in choices:
        raise _refused(argument, value, f"one of {', '.join(choices)}")
    return str(value)


def whole_number(argument: str, value: object, lowest: int | None = None, highest: int | None = None) -> int:
    """A whole number within bounds, both included."""
    bounds = "" if lowest is None else f" of {lowest} or more" if highest is None else f" from {lowest} to {highest}"
    if (
        isinstance(value, bool | np.bool_)
        or not isinstance(value, int | np.integer)
        or (lowest is not None and value < lowest)
        or (highest is not None and value > highest)
    ):
        raise _refused(argument, value, f"a whole number{bounds}")
    return int(value)


def share(argument: str, value: object) -> float:
    """A number above 0 and below 1."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise _refused(argument, value, "a number above 0 and below 1")
    return float(value)


def image_shape(argument: str, values: object) -> tuple[int, int, int]:
    """Height, width and channels, each above 0."""
    expected = "(height, width, channels)"
    lengths = shape(argument, values, expected)
    if len(lengths) != 3:
        raise _refused(argument, values, expected)
    height, width, channels = lengths
    return height, width, channels


def shape(argument: str, values: object, expected: str = "an array's shape") -> tuple[int, ...]:
    """An array's lengths, each above 0."""
    listed = items(argument, values, expected)
    return tuple(whole_number(f"{argument}[{place}]", each, 1) for place, each in enumerate(listed))


def paths(argument: str, values: object) -> list[Path]:
    """A list of paths; a single path is a list of one."""
    if isinstance(values, str | os.PathLike):
        return [file_path(argument, values)]
    listed = items(argument, values, "a list of paths")
    return [file_path(f"{argument}[{place}]", each) for place, each in enumerate(listed)]


def array(argument: str, values: object, kinds: str, expected: str) -> NDArray[Any]:
    """Numbers as an array.

    Args:
        argument: what a message calls it.
        values: an array, or nested lists, each as long as the others.
        kinds: NumPy's letters of the types to take, `iu` for whole numbers and `f` for floats.
        expected: what a message says of them, with their shape.
    """
    try:
        given = np.asarray(values)
    except (TypeError, ValueError):  # rows of several lengths
        raise _refused(argument, values, expected) from None
    if given.dtype.kind not in kinds:
        raise _refused(argument, values, expected)
    return given


def instance(argument: str, value: object, kind: type[_T], made_by: str) -> _T:
    """An object of a class of this package."""
    if not isinstance(value, kind):
        raise _refused(argument, value, f"a {kind.__name__}, as {made_by} gives it")
    return value
