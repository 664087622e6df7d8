"""How long an allocation should take, from its members' profiles alone: it orders what is benched."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement

__all__ = ["predicted_seconds", "work_seconds"]


def predicted_seconds(
    allocation: Allocation, devices: Mapping[str, Device], profiles: ProfileTable, n_images: int
) -> tuple[float, float]:
    """Seconds until all members have predicted `n_images`, and the sum of the members' own.

    The members of a device share its time evenly; replicas of a member take its images as fast as each can, and a
    request of few batches occupies no more replicas than it has batches. Nothing is lost to anything else. Rounded to
    nine digits, so that the same sum in another order gives the same number.
    """
    image_seconds: dict[Placement, float] = {}
    replicas: dict[str, list[Placement]] = {}
    for each in allocation:
        image_seconds[each] = work_seconds(each, devices[each.device], profiles, n_images) / n_images
        replicas.setdefault(each.model, []).append(each)
    for model, group in replicas.items():
        if len(group) > 1:
            group.sort(key=lambda each: image_seconds[each])
            replicas[model] = group[: math.ceil(n_images / group[0].batch_size)]
    left = dict.fromkeys(replicas, float(n_images))
    now = total = 0.0
    while left:
        sharing: dict[str, int] = {}
        for model in left:
            for each in replicas[model]:
                sharing[each.device] = sharing.get(each.device, 0) + 1
        rates = {
            model: sum(1 / (sharing[each.device] * image_seconds[each]) for each in replicas[model]) for model in left
        }
        step = min(left[model] / rates[model] for model in left)
        now += step
        after = {model: images - step * rates[model] for model, images in left.items()}
        left = {model: images for model, images in after.items() if images > 1e-9 * n_images}
        total += now * (len(after) - len(left))
    return float(f"{now:.9g}"), float(f"{total:.9g}")


def work_seconds(placement: Placement, device: Device, profiles: ProfileTable, n_images: int) -> float:
    """Seconds that one process needs for `n_images` with the device to itself."""
    n_whole, rest = divmod(n_images, placement.batch_size)
    seconds = n_whole * profiles.call_seconds(placement, device, placement.batch_size) if n_whole else 0.0
    return seconds + (profiles.call_seconds(placement, device, rest) if rest else 0.0)
