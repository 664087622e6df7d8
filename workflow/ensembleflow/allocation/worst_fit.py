"""A first allocation that fits in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensembleflow.allocation.devices import Device
from ensembleflow.errors import AllocationError

__all__ = ["worst_fit"]


def worst_fit(memory_mb: Mapping[str, float], devices: Sequence[Device]) -> dict[str, str]:
    """Place members in order of decreasing memory, each on the device with the most memory free.

    Equal members keep their order; of equally free devices the first is taken.

    Args:
        memory_mb: each member's memory in MB.
        devices: at least one.

    Returns:
        each member's device name, in the order of `memory_mb`.

    Raises:
        AllocationError: a member fits on no device. (Being greedy, it may miss a packing that exists.)

    Source: the paper's section 2.4, its first algorithm (worst-fit decreasing). The paper puts GPUs before
    CPUs; here all devices are of one kind.
    """
    free_mb = {device.name: float(device.memory_mb) for device in devices}
    placed: dict[str, str] = {}
    for model in sorted(memory_mb, key=lambda model: -memory_mb[model]):
        device = max(free_mb, key=lambda name: free_mb[name])  # max takes the first of equals
        if memory_mb[model] > free_mb[device]:
            free = (f"{each.name}: {free_mb[each.name]:.0f} of {each.memory_mb} MB free" for each in devices)
            raise AllocationError(
                f"the member {model} fits on no device",
                where="allocation.devices",
                found=", ".join(free),
                expected=f"{memory_mb[model]:.0f} MB free on one device, after "
                f"{len(placed)} of {len(memory_mb)} members were placed",
                hint="raise memory_mb of the devices, add a device, or take a smaller budget",
            )
        placed[model] = device
        free_mb[device] -= memory_mb[model]
    return {model: placed[model] for model in memory_mb}
