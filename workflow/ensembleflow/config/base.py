"""What every block of the config is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ensembleflow.config.times import minutes_of

__all__ = ["NOT_DECIMAL", "Block", "Metric", "distinct"]

Metric = Literal["error", "macro_f1_error", "cross_entropy"]


NOT_DECIMAL = "not_decimal"
"""The type of the error of a text where numbers are taken."""

_DECIMAL = re.compile(r"[-+]?(?:(?!0[0-9])[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class Block(BaseModel):
    """A block of the config: unknown keys are errors, values never change after validation.

    A validator's message says what must be, and puts the keys that it is about in backticks:
    `ensembleflow.config.faults` looks up their values and lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _bool_for_switches_only(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read `yes` as the number 1, and 1 as `true`.
        if info.field_name is not None and cls.model_fields[info.field_name].annotation is bool:
            if not isinstance(value, bool):
                raise ValueError("must be true or false")
            return value
        if any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("must be neither true nor false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_in_decimal_digits(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read `1_000`, and digits of other scripts.
        field = cls.model_fields[str(info.field_name)]
        texts = [part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, str)]
        if all(_DECIMAL.fullmatch(text) for text in texts) or not _takes_numbers_only(field.annotation):
            return value
        if any(getattr(each, "func", None) is minutes_of for each in field.metadata):
            return value
        raise PydanticCustomError(NOT_DECIMAL, "must be in decimal digits")


def _takes_numbers_only(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return False
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _takes_numbers_only(parts[0])
    return all(map(_takes_numbers_only, parts)) if parts else annotation in (int, float, type(None))


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list in which a value stands twice."""
    if len(set(map(str, values))) != len(values):
        raise ValueError("must be values that differ from each other")
    return values
