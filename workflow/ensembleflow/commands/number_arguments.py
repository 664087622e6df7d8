"""The numbers that the commands' options take: each function gives argparse a `type` that refuses what is outside."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

__all__ = ["number", "positive_number", "whole_number"]

# No option counts further; Python reads no text of thousands of digits.
_MAX_WHOLE = 2**40
_MAX_DIGITS = 20


def whole_number(lowest: int, highest: int = _MAX_WHOLE) -> Callable[[str], int]:
    """Whole numbers from `lowest`, 0 or more, to `highest`, in plain digits.

    The function that is returned raises argparse.ArgumentTypeError for any other text.
    """

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text[:_MAX_DIGITS]) <= highest):
            raise argparse.ArgumentTypeError(f"{text} is not a whole number {_range(lowest, highest, _MAX_WHOLE)}")
        return int(text)

    return parse


def number(lowest: float, highest: float = math.inf) -> Callable[[str], float]:
    """Finite numbers from `lowest` to `highest`.

    The function that is returned raises argparse.ArgumentTypeError for any other text.
    """

    def parse(text: str) -> float:
        value = _finite(text)
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not a number {_range(lowest, highest, math.inf)}")
        return value

    return parse


def positive_number(text: str) -> float:
    """A finite number above 0.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    value = _finite(text)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _range(lowest: float, highest: float, unlimited: float) -> str:
    if highest == unlimited:
        return f"of {lowest} or more"
    return f"from {lowest:.15g} to {highest:.15g}"
