"""Of many values a message names the first, and counts the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["lines_of_some", "some"]

_MAX_TOLD = 10


def some(values: Sequence[object] | NDArray[Any]) -> str:
    """The first ten values in one line, and how many more there are."""
    told = ", ".join(str(value) for value in values[:_MAX_TOLD])
    return told if len(values) <= _MAX_TOLD else f"{told} and {len(values) - _MAX_TOLD} more"


def lines_of_some(lines: Sequence[str]) -> str:
    """The first ten lines, as one part of a message, and how many more there are."""
    told = list(lines[:_MAX_TOLD])
    if len(lines) > _MAX_TOLD:
        told.append(f"and {len(lines) - _MAX_TOLD} more")
    return "\n            ".join(told)
