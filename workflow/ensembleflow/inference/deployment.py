"""An ensemble and how it is run, as one value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from ensembleflow.inference.devices import Device
from ensembleflow.inference.fork_server import ForkServer
from ensembleflow.inference.placement import Member
from ensembleflow.inference.request import Limits

__all__ = ["Deployment", "StopRule"]


@dataclass(frozen=True)
class StopRule:
    """When an image of a cascade needs no further member.

    After each member but the last an image stops if the largest probability of the average so far is at least the
    threshold of that stage.

    Attributes:
        members: the ensemble's model ids, in the order in which they answer.
        thresholds: of each stage but the last; `inf` stops no image.
    """

    members: tuple[str, ...]
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, members: Sequence[str], thresholds: Sequence[float | None]) -> StopRule | None:
        """The rule as JSON has it, where no threshold is null; None for a single member, which never goes on."""
        stops = tuple(math.inf if threshold is None else float(threshold) for threshold in thresholds)
        return cls(tuple(members), stops) if len(members) > 1 else None


@dataclass(frozen=True)
class Deployment:
    """What stays the same of a running ensemble while its allocation changes.

    Attributes:
        members: the ensemble, in its allocations' order.
        devices: those that allocations may name.
        image_shape: (height, width, channels), or of other samples their shape.
        n_classes: number of classes.
        limits: how much it takes on, and how long it waits.
        fork_server: what members' processes may be forked from, which must outlive them.
        stop_rule: of a cascade; None where every member answers every image.
        image_dtype: the images' type, `uint8` or `float32`.
    """

    members: Sequence[Member]
    devices: Sequence[Device]
    image_shape: tuple[int, ...]
    n_classes: int
    limits: Limits = field(default_factory=Limits)
    fork_server: ForkServer | None = None
    stop_rule: StopRule | None = None
    image_dtype: str = "uint8"

    @property
    def models(self) -> list[str]:
        """The members' model ids."""
        return [member.model for member in self.members]

    def require_images(self, images: npt.NDArray[Any]) -> None:
        """Refuse what the members cannot predict.

        Raises:
            ValueError: `images` has another shape or type.
        """
        if images.dtype != self.image_dtype or images.shape[1:] != self.image_shape:
            expected = f"{self.image_dtype} (n, {self.image_shape})"
            raise ValueError(f"images are {images.dtype} {images.shape}, expected {expected}")
