"""What a bundle keeps of an allocation that the allocation stage found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensembleflow.serving.manifest import BundledDevice, BundledPlacement

__all__ = ["bundled_allocation"]


def bundled_allocation(allocation: Mapping[str, Any]) -> tuple[list[BundledPlacement], list[BundledDevice]]:
    """Placements and devices, of the content of `devices-{n}.json`.

    Raises:
        KeyError: something is missing.
        TypeError: something is of another type.
        ValidationError: likewise, or a value is impossible.
    """
    placements = [
        BundledPlacement(**{key: each[key] for key in BundledPlacement.model_fields if key in each})
        for each in allocation["members"]
    ]
    measured = allocation["devices"]
    gpus = [each["name"] for each in measured if each.get("gpu") is not None]
    devices = [
        BundledDevice(
            name=each["name"],
            cores=len(each["core_ids"]),
            memory_mb=each["memory_mb"],
            gpu=gpus.index(each["name"]) if each["name"] in gpus else None,
        )
        for each in measured
    ]
    return placements, devices
