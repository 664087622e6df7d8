"""An ensemble and how it is run, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ensembleflow.inference.devices import Device
from ensembleflow.inference.fork_server import ForkServer
from ensembleflow.inference.placement import Member
from ensembleflow.inference.request import Limits

__all__ = ["Deployment"]


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
        image_dtype: the images' type, `uint8` or `float32`.
    """

    members: Sequence[Member]
    devices: Sequence[Device]
    image_shape: tuple[int, ...]
    n_classes: int
    limits: Limits = field(default_factory=Limits)
    fork_server: ForkServer | None = None
    image_dtype: str = "uint8"

    @property
    def models(self) -> list[str]:
        """The members' model ids."""
        return [member.model for member in self.members]
