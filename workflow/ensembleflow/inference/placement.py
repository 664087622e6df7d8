"""Allocations as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ensembleflow.models.engines import DEFAULT_ENGINE

__all__ = ["Allocation", "Placement", "allocation_text", "parse_allocation"]


@dataclass(frozen=True)
class Placement:
    """Where one replica of a member runs.

    Attributes:
        model: the member's model id.
        device: its device's name.
        batch_size: images a call.
        engine: what computes it, a name of `ensembleflow.models.engines.ENGINES`.
    """

    model: str
    device: str
    batch_size: int
    engine: str = DEFAULT_ENGINE


Allocation = tuple[Placement, ...]
"""At least one placement a member, in the ensemble's order; replicas of a member follow each other."""


def allocation_text(allocation: Iterable[Placement]) -> str:
    """One line, such as `trial-00003@cpu0/32 trial-00007@cpu1/128:openvino`."""
    return " ".join(
        f"{each.model}@{each.device}/{each.batch_size}" + ("" if each.engine == DEFAULT_ENGINE else f":{each.engine}")
        for each in allocation
    )


def parse_allocation(text: str) -> Allocation:
    """The allocation that `allocation_text` told.

    Raises:
        ValueError: the text is none.
    """
    return tuple(_parse_placement(each) for each in text.split())


def _parse_placement(text: str) -> Placement:
    model, at, rest = text.partition("@")
    device, slash, setting = rest.partition("/")
    batch_size, _, engine = setting.partition(":")
    if not (model and at and device and slash and batch_size.isdecimal()):
        raise ValueError(f"{text} is no placement such as trial-00003@cpu0/32")
    return Placement(model, device, int(batch_size), engine or DEFAULT_ENGINE)
