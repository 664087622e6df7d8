"""A new allocation after a device was lost or added, from the old one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ensembleflow.allocation.devices import Device
from ensembleflow.allocation.placement import Allocation, Placement
from ensembleflow.allocation.profile_table import ProfileTable
from ensembleflow.allocation.refine import Refinement
from ensembleflow.allocation.refine_allocation import refine_allocation
from ensembleflow.allocation.score import Score
from ensembleflow.allocation.worst_fit import worst_fit
from ensembleflow.config import AllocationConfig
from ensembleflow.errors import AllocationError

__all__ = ["carry_over", "reallocate"]


def reallocate(
    old: Allocation,
    models: Sequence[str],
    devices: Sequence[Device],
    profiles: ProfileTable,
    bench: Callable[[Allocation], Score],
    config: AllocationConfig,
) -> Refinement[Allocation]:
    """Carry an allocation over to the devices that there are now, and refine it there.

    Devices that were added are used by the refinement; its first bench is what the old allocation is worth now.

    Raises:
        AllocationError: a member fits on no device, or no allocation could run.
    """
    return refine_allocation(carry_over(old, models, devices, profiles), devices, profiles, bench, config)


def carry_over(old: Allocation, models: Sequence[str], devices: Sequence[Device], profiles: ProfileTable) -> Allocation:
    """The old allocation as far as it is possible on these devices; members that lost their place go worst-fit.

    A placement stays where its device is still there, the member still runs on it, and its memory suffices; where that
    shrank, the largest stay. A member of which a replica stays is not placed again. Where those that stay leave no
    room for the others, all are placed anew.

    Args:
        old: an allocation on other devices.
        models: the ensemble's members, in its order.
        devices: those that there are.
        profiles: what runs where, with how much memory.

    Raises:
        AllocationError: a member fits on no device.
    """
    stay = _staying(old, devices, profiles)
    held = {each.model for each in stay}
    orphans = [model for model in models if model not in held]
    try:
        placed = worst_fit(orphans, devices, profiles, stay)
    except AllocationError:
        return worst_fit(models, devices, profiles)
    everyone = (*stay, *placed)
    return tuple(each for model in models for each in everyone if each.model == model)


def _staying(old: Allocation, devices: Sequence[Device], profiles: ProfileTable) -> list[Placement]:
    by_name = {device.name: device for device in devices}
    running = [each for each in old if each.device in by_name and profiles.find(each, by_name[each.device])]
    free_mb = {device.name: float(device.memory_mb) for device in devices}
    stay = set()
    for each in sorted(running, key=lambda each: -profiles.memory_mb(each, by_name[each.device])):
        memory_mb = profiles.memory_mb(each, by_name[each.device])
        if memory_mb <= free_mb[each.device]:
            free_mb[each.device] -= memory_mb
            stay.add(each)
    return [each for each in old if each in stay]
