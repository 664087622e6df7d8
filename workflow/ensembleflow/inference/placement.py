"""Members and their allocations, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ensembleflow.models.engines import DEFAULT_ENGINE

__all__ = ["Allocation", "Member", "Placement", "allocation_text"]


@dataclass(frozen=True)
class Member:
    """A member to run.

    Attributes:
        model: its model id.
        exported: the folder of its exported function.
    """

    model: str
    exported: Path


@dataclass(frozen=True)
class Placement:
    """Where one replica of a member runs.

    Attributes:
        model: the member's model id.
        device: its device's name.
        batch_size: images per call.
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
