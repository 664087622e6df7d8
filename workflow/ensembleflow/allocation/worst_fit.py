"""A first allocation that fits in memory: from nothing, or from an allocation on other devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.errors import AllocationError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement
from ensembleflow.models.engines import ENGINES

__all__ = ["carry_over", "start_placement", "worst_fit"]


def worst_fit(
    models: Sequence[str], devices: Sequence[Device], profiles: ProfileTable, placed: Iterable[Placement] = ()
) -> Allocation:
    """Place members in order of decreasing memory, each on the device with the most memory free, GPUs first.

    A set of cores is taken only where no GPU that the member runs on has room. On each kind of device a member
    starts with the engine that comes first in `ENGINES` (TensorFlow, whose answers the cache holds) and the largest
    batch size that runs there: the one whose memory bounds the others', and the nearest to the fastest where images
    come in numbers. (The paper leaves the first batch size open.) If members do not fit so, all start at the next
    smaller size, and so on. Equal members keep their order; of equally free devices the first is taken.

    Args:
        models: the members to place.
        devices: at least one.
        profiles: what runs where, with how much memory.
        placed: placements that stay, whose memory is taken already.

    Returns:
        one placement a member, in the order of `models`.

    Raises:
        AllocationError: a member fits on no device. (Being greedy, it may miss a packing that exists.)

    Source: the paper's section 2.4, its first algorithm (worst-fit decreasing).
    """
    sizes = sorted({profile.batch_size for profile in profiles}, reverse=True) or [1]
    for most_images in sizes[:-1]:
        with suppress(AllocationError):
            return _place(models, devices, profiles, placed, most_images)
    return _place(models, devices, profiles, placed, sizes[-1])


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


def _place(
    models: Sequence[str],
    devices: Sequence[Device],
    profiles: ProfileTable,
    placed: Iterable[Placement],
    most_images: int,
) -> Allocation:
    by_name = {device.name: device for device in devices}
    used_mb = profiles.used_mb(placed, by_name)
    free_mb = {device.name: device.memory_mb - used_mb[device.name] for device in devices}
    starts = {model: _starts(model, devices, profiles, most_images) for model in models}
    # A member that runs on several kinds of device counts with the most that it takes anywhere.
    size_mb = {model: max((mb for _, mb in starts[model].values()), default=0.0) for model in models}
    found: dict[str, Placement] = {}
    for model in sorted(models, key=lambda model: -size_mb[model]):
        fitting = [name for name, (_, memory_mb) in starts[model].items() if memory_mb <= free_mb[name]]
        if not fitting:
            raise _fits_nowhere(model, devices, profiles, starts[model], free_mb, (len(found), len(models)))
        # max takes the first of equals.
        name = max(fitting, key=lambda name: (by_name[name].gpu is not None, free_mb[name]))
        found[model], memory_mb = starts[model][name]
        free_mb[name] -= memory_mb
    return tuple(found[model] for model in models)


def _starts(
    model: str, devices: Sequence[Device], profiles: ProfileTable, most_images: int
) -> dict[str, tuple[Placement, float]]:
    """How a member would start on each device that it runs on, and with how much memory in MB."""
    placements = [start_placement(model, device, profiles, most_images) for device in devices]
    return {
        device.name: (placement, profiles.memory_mb(placement, device))
        for device, placement in zip(devices, placements, strict=True)
        if placement
    }


def start_placement(
    model: str, device: Device, profiles: ProfileTable, most_images: int | None = None
) -> Placement | None:
    """How a member starts on a device (see `worst_fit`); None if it does not run there.

    With `most_images` the batch size is at most that where the member runs with one so small.
    """
    runs = profiles.runs(model, device.kind)
    if most_images is not None:
        runs = [run for run in runs if run.batch_size <= most_images] or runs[:1]
    if not runs:
        return None
    best = max(runs, key=lambda run: (-ENGINES.index(run.engine), run.batch_size))
    return Placement(model, device.name, best.batch_size, best.engine)


def _fits_nowhere(
    model: str,
    devices: Sequence[Device],
    profiles: ProfileTable,
    starts: dict[str, tuple[Placement, float]],
    free_mb: dict[str, float],
    n_placed_of: tuple[int, int],
) -> AllocationError:
    if not starts:
        return AllocationError(
            f"the member {model} runs on no device",
            where="allocation.devices",
            found="\n            ".join(
                f"{kind}: {profiles.failure(model, kind)}" for kind in dict.fromkeys(each.kind for each in devices)
            ),
            hint="if memory is the reason, add a smaller size to allocation.batch_sizes",
        )
    needed = ", ".join(f"{memory_mb:.0f} MB on {name}" for name, (_, memory_mb) in starts.items())
    return AllocationError(
        f"the member {model} fits on no device",
        where="allocation.devices",
        found=", ".join(f"{each.name}: {free_mb[each.name]:.0f} of {each.memory_mb} MB free" for each in devices),
        expected=f"room for it ({needed}), after {n_placed_of[0]} of {n_placed_of[1]} members were placed",
        hint="raise memory_mb of the devices, add a device, or take a smaller budget",
    )


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
