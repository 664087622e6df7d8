"""What every block of the config is made of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

__all__ = ["Block", "Metric", "distinct"]

Metric = Literal["error", "macro_f1_error", "cross_entropy"]


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


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list in which a value stands twice."""
    if len(set(map(str, values))) != len(values):
        raise ValueError("must be values that differ from each other")
    return values
