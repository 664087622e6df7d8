"""A hyperparameter's range, as the config writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

__all__ = ["FloatRange", "IntRange", "Range", "Values", "read_values", "written_values"]


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included: written `[low, high]`, or `{low: …, high: …, log: true}`.

    Attributes:
        low: the lowest value.
        high: the highest value.
        log: whether it is the value's logarithm that is drawn uniformly.
    """

    low: float
    high: float
    log: bool = False

    numbers: ClassVar[str] = "numbers"
    item_schema: ClassVar[dict[str, str]] = {"type": "number"}

    @classmethod
    def takes(cls) -> str:
        """The values that it is written as, in words."""
        return f"a range of {cls.numbers}: `[lowest, highest]` or `{{low: lowest, high: highest, log: true}}`"

    @classmethod
    def read(cls, value: Any) -> Self:
        """Make from what a config file has.

        Raises:
            ValueError: it is no range; the message says what must be.
        """
        if isinstance(value, Range):
            value = {"low": value.low, "high": value.high, "log": value.log}
        if isinstance(value, list | tuple) and len(value) == 2:
            value = {"low": value[0], "high": value[1]}
        if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
            raise ValueError(f"must be {cls.takes()}")
        log = value.get("log", False)
        if not isinstance(log, bool):
            raise ValueError("must have `true` or `false` as its `log`")
        made = cls(cls._number(value["low"]), cls._number(value["high"]), log)
        if made.low > made.high:
            raise ValueError("must be a range whose lowest value comes first")
        if log and made.low <= 0:
            raise ValueError("must start above 0 where its `log` is true")
        return made

    @classmethod
    def _number(cls, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"must be {cls.takes()}")
        return float(value)

    def written(self) -> list[float] | dict[str, float | bool]:
        """As JSON values, in the shorter of the two forms."""
        return {"low": self.low, "high": self.high, "log": True} if self.log else [self.low, self.high]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(cls.written)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        ends = {"low": cls.item_schema, "high": cls.item_schema}
        return {
            "anyOf": [
                {"type": "array", "items": cls.item_schema, "minItems": 2, "maxItems": 2},
                {
                    "type": "object",
                    "properties": {**ends, "log": {"type": "boolean"}},
                    "required": ["low", "high"],
                    "additionalProperties": False,
                },
            ]
        }


class FloatRange(Range):
    """A range of real numbers."""


class IntRange(Range):
    """A range of whole numbers."""

    low: int
    high: int

    numbers: ClassVar[str] = "whole numbers"
    item_schema: ClassVar[dict[str, str]] = {"type": "integer"}

    @classmethod
    def _number(cls, value: Any) -> int:
        number = super()._number(value)
        if not number.is_integer():
            raise ValueError(f"must be {cls.takes()}")
        return int(number)


Values = Range | list[Any]
"""What a hyperparameter may be: a range, or choices."""

_TAKES = (
    "a range of two numbers (`[8, 32]`; whole numbers where both are, so write `[0.0, 1.0]` for shares), "
    "`{low: 1e-5, high: 1e-3, log: true}`, or choices (a list of texts, or of true and false; of numbers "
    "`{choices: [8, 16]}`)"
)


def read_values(value: Any) -> Values:
    """A hyperparameter's range or choices, of a family whose hyperparameters' types are not known beforehand.

    A range of two whole numbers is one of whole numbers.

    Raises:
        ValueError: it is neither; the message says what must be.
    """
    choices = value.get("choices") if isinstance(value, Mapping) and value.keys() == {"choices"} else value
    if isinstance(choices, list | tuple) and choices:
        kinds = {type(each) for each in choices}
        if kinds in ({str}, {bool}) or (choices is not value and kinds <= {int, float}):
            if len(set(choices)) != len(choices):
                raise ValueError("must be choices that differ from each other")
            return list(choices)
    ends = [value.get("low"), value.get("high")] if isinstance(value, Mapping) else value
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        if isinstance(value, Range):
            return value
        raise ValueError(f"must be {_TAKES}")
    try:
        return (IntRange if all(type(each) is int for each in ends) else FloatRange).read(value)
    except ValueError as error:
        told = str(error)
        raise ValueError(f"must be {_TAKES}" if told.startswith("must be a range of") else told) from None


def written_values(values: Values) -> Any:
    """As JSON values that `read_values` reads."""
    if isinstance(values, Range):
        return values.written()
    return values if isinstance(values[0], str | bool) else {"choices": values}
