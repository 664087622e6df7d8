"""Durations as people write them for Slurm."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

__all__ = ["MINUTES_IN_WORDS", "Minutes", "minutes_of"]

MINUTES_IN_WORDS = "whole minutes (`90`) or a time as Slurm writes it (`4:00:00`, `2-00:00`)"

_NUMBER = "[0-9]+"
_TIMES = (
    (rf"({_NUMBER})", (60,)),
    (rf"({_NUMBER}):({_NUMBER})", (60, 1)),
    (rf"({_NUMBER}):({_NUMBER}):({_NUMBER})", (3600, 60, 1)),
    (rf"({_NUMBER})-({_NUMBER})", (86400, 3600)),
    (rf"({_NUMBER})-({_NUMBER}):({_NUMBER})", (86400, 3600, 60)),
    (rf"({_NUMBER})-({_NUMBER}):({_NUMBER}):({_NUMBER})", (86400, 3600, 60, 1)),
)


def minutes_of(value: Any) -> Any:
    """Minutes of a time in one of Slurm's forms, begun ones counted whole; whatever is no text as it is.

    The forms are those of `sbatch --time`: `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`,
    `days-hours:minutes` and `days-hours:minutes:seconds`.

    Raises:
        ValueError: a text is no such time.
    """
    if not isinstance(value, str):
        return value
    for pattern, seconds in _TIMES:
        match = re.fullmatch(pattern, value.strip())
        # `010` is 8 to YAML, and 10 to a person.
        if match is not None and (len(seconds) > 1 or not re.match("0[0-9]", match[1])):
            total = sum(int(number) * each for number, each in zip(match.groups(), seconds, strict=True))
            return -(-total // 60)
    raise ValueError(f"must be {MINUTES_IN_WORDS}")


Minutes = Annotated[
    int,
    BeforeValidator(minutes_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9]+(-[0-9]+)?(:[0-9]+){0,2}$"},
            ]
        }
    ),
]
"""Minutes, or a time as Slurm writes it."""
