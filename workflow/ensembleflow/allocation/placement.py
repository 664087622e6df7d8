"""Allocations as values, and the neighbours of one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ensembleflow.allocation.devices import Device
from ensembleflow.models.engines import DEFAULT_ENGINE

__all__ = ["Allocation", "Placement", "allocation_text", "find_neighbours"]


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


def find_neighbours(
    allocation: Allocation,
    devices: Sequence[Device],
    batch_sizes: Sequence[int],
    memory_mb: Mapping[str, float],
    cost_seconds: Mapping[str, float],
) -> list[tuple[str, Allocation]]:
    """All allocations one update away: one member on another device with room for it, or at another batch size.

    The order decides what is benched when there are not benches enough for all. Costs predict how long the
    busiest device works for one request: first the moves that shorten it, then changes of batch size
    (members of the busiest device first, nearest size first, the larger of two), then moves that lengthen
    it; among equals, those that restart no process first.

    Args:
        allocation: the present one.
        devices: where members may go.
        batch_sizes: what batch sizes may become.
        memory_mb: each model's memory, at any batch size.
        cost_seconds: each model's cost.

    Returns:
        pairs of what changes (`trial-00003: cpu0 -> cpu1`, `trial-00003: batch 8 -> 32`) and the allocation.

    Source: the paper's section 2.4, "all neighborhood settings distant from 1 update".
    """
    by_name = {device.name: device for device in devices}
    used_mb = {name: sum(memory_mb[each.model] for each in allocation if each.device == name) for name in by_name}
    now = _busy_seconds(allocation, by_name, cost_seconds)
    found: list[tuple[tuple[float, ...], str, Allocation]] = []

    def add(place: int, new: Placement, what: str, restarts: bool, distance: float) -> None:
        old = allocation[place]
        changed = (*allocation[:place], new, *allocation[place + 1 :])
        # Rounded, because the same sum in another order must not change the order of the benches.
        busiest = float(f"{max(_busy_seconds(changed, by_name, cost_seconds).values()):.9g}")
        order = (busiest, restarts, distance, -now[old.device], -cost_seconds[old.model], place)
        found.append((order, f"{old.model}: {what}", changed))

    for place, old in enumerate(allocation):
        for batch_size in sorted(batch_sizes, reverse=True):
            if batch_size != old.batch_size:
                distance = abs(math.log(batch_size / old.batch_size))
                what = f"batch {old.batch_size} -> {batch_size}"
                add(place, replace(old, batch_size=batch_size), what, restarts=False, distance=distance)
        for device in devices:
            room_mb = device.memory_mb - used_mb[device.name]
            if device.name != old.device and memory_mb[old.model] <= room_mb:
                restarts = len(device.core_ids) != len(by_name[old.device].core_ids)
                what = f"{old.device} -> {device.name}"
                add(place, replace(old, device=device.name), what, restarts=restarts, distance=0)
    found.sort(key=lambda each: each[0])
    return [(move, changed) for _, move, changed in found]


def _busy_seconds(
    allocation: Allocation, devices: Mapping[str, Device], cost_seconds: Mapping[str, float]
) -> dict[str, float]:
    busy = dict.fromkeys(devices, 0.0)
    for each in allocation:
        busy[each.device] += cost_seconds[each.model] / len(devices[each.device].core_ids)
    return busy
