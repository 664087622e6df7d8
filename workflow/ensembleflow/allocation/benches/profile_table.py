"""What is known of every member on every kind of device, to look up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ensembleflow.allocation.benches.profile import Profile
from ensembleflow.errors import AllocationError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Placement

__all__ = ["ProfileTable"]


class ProfileTable:
    """Profiles by model, kind of device, engine and batch size. Those that failed are not in it.

    Args:
        profiles: of any members on any kinds of device.
        shares: in a cascade the share of the images that a member sees, by model id; a call of it counts as so much
            of its time.
    """

    def __init__(self, profiles: Iterable[Profile], shares: Mapping[str, float] | None = None) -> None:
        self._shares = shares or {}
        self._by_key: dict[tuple[str, str, str, int], Profile] = {}
        self._by_place: dict[tuple[str, str], list[Profile]] = {}
        self._failures: dict[tuple[str, str], list[str]] = {}
        self._call_points: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
        for each in sorted(profiles, key=lambda profile: (profile.model, profile.batch_size)):
            place = each.model, each.device_kind
            if each.failure or each.images_per_second <= 0:
                what = f"{each.engine}, batch {each.batch_size}: {each.failure or 'no answer'}"
                self._failures.setdefault(place, []).append(what)
                continue
            sizes, seconds = self._call_points.setdefault((*place, each.engine), ([], []))
            sizes.append(each.batch_size)
            seconds.append(each.batch_size / each.images_per_second)
            self._by_key[*place, each.engine, each.batch_size] = each
            self._by_place.setdefault(place, []).append(each)

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._by_key.values())

    def runs(self, model: str, device_kind: str) -> Sequence[Profile]:
        """All ways in which a member runs on a kind of device; none if it cannot."""
        return self._by_place.get((model, device_kind), ())

    def find(self, placement: Placement, device: Device) -> Profile | None:
        """The profile of a placement; None if it does not run there."""
        return self._by_key.get((placement.model, device.kind, placement.engine, placement.batch_size))

    def memory_mb(self, placement: Placement, device: Device) -> float:
        """Memory that a placement takes of its device.

        Raises:
            AllocationError: it does not run there.
        """
        profile = self.find(placement, device)
        if profile is None:
            raise AllocationError(
                f"the member {placement.model} does not run on {device.name}",
                found=self.failure(placement.model, device.kind),
                expected=f"a profile of {placement.engine} at batch size {placement.batch_size} on {device.kind}",
            )
        return profile.peak_memory_mb

    def used_mb(self, allocation: Iterable[Placement], devices: Mapping[str, Device]) -> dict[str, float]:
        """Memory taken on each device."""
        used = dict.fromkeys(devices, 0.0)
        for each in allocation:
            used[each.device] += self.memory_mb(each, devices[each.device])
        return used

    def call_seconds(self, placement: Placement, device: Device, n_images: int) -> float:
        """Seconds of one call with `n_images`, with the device to itself.

        Between the profiled batch sizes on a line; below the smallest, on the line of the two smallest, but neither
        faster an image than these nor slower than a whole batch.
        """
        sizes, seconds = self._call_points[placement.model, device.kind, placement.engine]
        if n_images >= sizes[-1]:
            found = seconds[-1] * n_images / sizes[-1]
        elif n_images >= sizes[0]:
            found = float(np.interp(n_images, sizes, seconds))
        else:
            slope = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]) if len(sizes) > 1 else 0.0
            line = seconds[0] - slope * (sizes[0] - n_images)
            found = min(max(line, seconds[0] * n_images / sizes[0]), seconds[0])
        return found * self._shares.get(placement.model, 1.0) / device.speed

    def failure(self, model: str, device_kind: str) -> str:
        """Why a member does not run on a kind of device."""
        return "; ".join(self._failures.get((model, device_kind), ())) or f"no profile on {device_kind}"
