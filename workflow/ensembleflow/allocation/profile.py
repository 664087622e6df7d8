"""What each member needs and reaches on each kind of device, measured in fresh processes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Profile"]


@dataclass(frozen=True)
class Profile:
    """One member on one kind of device, with one engine, at one batch size.

    Attributes:
        model: the member's model id.
        device_kind: `Device.kind`.
        engine: a name of `ensembleflow.models.engines.ENGINES`.
        batch_size: images a call.
        images_per_second: median over the calls; 0 after a failure.
        peak_memory_mb: the most memory that the process had of the device; 0 after a failure.
        failure: empty, or why it could not run.
    """

    model: str
    device_kind: str
    engine: str
    batch_size: int
    images_per_second: float
    peak_memory_mb: float
    failure: str = ""
