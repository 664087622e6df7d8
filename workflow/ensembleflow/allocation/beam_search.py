"""The allocations that should be fast by the profiles alone, wherever they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.predicted import work_seconds
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement

__all__ = ["beam_search"]


@dataclass(frozen=True)
class _Partial:
    """Some members placed: where, the seconds of work on each device, and the memory left there."""

    placements: tuple[Placement, ...]
    busy_seconds: tuple[float, ...]
    free_mb: tuple[float, ...]

    @property
    def key(self) -> tuple[float, float]:
        return float(f"{max(self.busy_seconds):.9g}"), float(f"{sum(self.busy_seconds):.9g}")


def beam_search(
    models: Sequence[str], devices: Sequence[Device], profiles: ProfileTable, n_images: int, width: int = 64
) -> list[Allocation]:
    """Allocations whose busiest device is done soonest, the best first; no two put all members on the same devices.

    A beam search: members are placed in order of decreasing work, each in every setting that nothing faster undercuts
    in memory, and after each the best `width` partial allocations are kept. No member has a replica.

    Args:
        models: the members.
        devices: where they may go.
        profiles: what runs where, with how much memory.
        n_images: images of the request that is to be done soon.
        width: partial allocations kept, and the most to return.

    Returns:
        none where no partial allocation has room for a member.
    """
    options = {model: [_fastest_first(model, device, profiles, n_images) for device in devices] for model in models}
    least = {model: min((each[0][1] for each in options[model] if each), default=0.0) for model in models}
    beam = [_Partial((), (0.0,) * len(devices), tuple(float(device.memory_mb) for device in devices))]
    for model in sorted(models, key=lambda model: -least[model]):
        grown: dict[tuple[object, ...], _Partial] = {}
        for partial in beam:
            for place, settings in enumerate(options[model]):
                for new in _extensions(partial, place, settings):
                    grown.setdefault(_signature(new, devices), new)
        beam = sorted(grown.values(), key=lambda each: each.key)[:width]
    order = {model: place for place, model in enumerate(models)}
    best: dict[tuple[str, ...], Allocation] = {}
    for each in beam:
        allocation = tuple(sorted(each.placements, key=lambda placement: order[placement.model]))
        best.setdefault(tuple(placement.device for placement in allocation), allocation)
    return list(best.values())


def _fastest_first(
    model: str, device: Device, profiles: ProfileTable, n_images: int
) -> list[tuple[Placement, float, float]]:
    """A member's settings on a device, with seconds of work and memory in MB; each takes less than those before."""
    settings = []
    for run in profiles.runs(model, device.kind):
        placement = Placement(model, device.name, run.batch_size, run.engine)
        settings.append((placement, work_seconds(placement, device, profiles, n_images), run.peak_memory_mb))
    settings.sort(key=lambda each: each[1:])
    least_mb = itertools.accumulate((each[2] for each in settings), min, initial=math.inf)
    return [each for each, before in zip(settings, least_mb, strict=False) if each[2] < before]


def _extensions(partial: _Partial, place: int, settings: list[tuple[Placement, float, float]]) -> Iterator[_Partial]:
    for placement, seconds, memory_mb in settings:
        if memory_mb <= partial.free_mb[place]:
            busy, free = list(partial.busy_seconds), list(partial.free_mb)
            busy[place] += seconds
            free[place] -= memory_mb
            yield _Partial((*partial.placements, placement), tuple(busy), tuple(free))


def _signature(partial: _Partial, devices: Sequence[Device]) -> tuple[object, ...]:
    """Equal for partial allocations that differ only in which of several equal devices does what."""
    return tuple(
        sorted(
            (device.kind, device.speed, device.memory_mb, f"{busy:.9g}", f"{free:.9g}")
            for device, busy, free in zip(devices, partial.busy_seconds, partial.free_mb, strict=True)
        )
    )
