"""How a budget is written: an amount of the cost, of another cost column, or of several."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

__all__ = ["PRIMARY_COST", "Budget", "budget_name", "budget_parts"]

PRIMARY_COST = "cost_seconds"
"""The column of `costs.csv` that a bare amount means."""

_COLUMN = r"[A-Za-z][A-Za-z0-9_]*"
_AMOUNT = r"((?:(?!0[0-9])[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)([xX]?)"
_LONGEST_EXPONENT = 30  # a budget names files, digit by digit


def budget_parts(value: object) -> list[tuple[str, str]]:
    """The limits that a budget sets: columns and amounts, the cost in seconds first, the others by name.

    An amount is a number in the column's unit (`320`, `5e-4`) or a multiple of the column's median (`4x`).

    Raises:
        ValueError: `value` is no budget, or names a column twice.
    """
    parts: dict[str, str] = {}
    for text in str(value).strip().split(","):
        match = re.fullmatch(rf"(?:({_COLUMN})\s*=\s*)?{_AMOUNT}", text.strip())
        if isinstance(value, bool) or match is None or not 0 < float(match[2]) < math.inf:
            raise ValueError(
                "must be seconds (320), a multiple of the median cost (4x) or either of a column of costs.csv "
                "(parameter_bytes=2x), above 0; several are parted by commas"
            )
        amount = Decimal(match[2])
        if abs(amount.adjusted()) > _LONGEST_EXPONENT:
            raise ValueError(f"must be between 1e-{_LONGEST_EXPONENT} and 1e{_LONGEST_EXPONENT}")
        column = match[1] or PRIMARY_COST
        if column in parts:
            raise ValueError(f"sets {column} twice")
        parts[column] = f"{amount.normalize():f}{match[3].lower()}"
    return sorted(parts.items(), key=lambda part: (part[0] != PRIMARY_COST, part[0]))


def budget_name(value: object) -> str:
    """The name of a budget in files and tables: `4x` for a multiple, `320` for seconds, `4x,parameter_bytes=2x`.

    Raises:
        ValueError: `value` is no budget.
    """
    return ",".join(
        amount if column == PRIMARY_COST else f"{column}={amount}" for column, amount in budget_parts(value)
    )


_PART = rf" *({_COLUMN} *= *)?({_AMOUNT}) *"
_PATTERN = f"^{_PART}(,{_PART})*$"

Budget = Annotated[
    str,
    BeforeValidator(budget_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": _PATTERN},
            ]
        }
    ),
]
