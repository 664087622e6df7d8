"""What this machine has for members: physical cores, memory, GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from ensembleflow.config import DeviceConfig
from ensembleflow.models.gpu import Gpu, visible_gpus

__all__ = [
    "available_memory_mb",
    "cgroup_free_bytes",
    "detect_devices",
    "physical_cores",
    "plan_devices",
    "usable_cores",
]

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def detect_devices(cores_per_device: int = 1) -> list[DeviceConfig]:
    """This machine's devices, as far as the scheduler lets this process use it: see `plan_devices`."""
    return plan_devices(physical_cores(usable_cores()), visible_gpus(), available_memory_mb(), cores_per_device)


def plan_devices(
    cores: Sequence[Sequence[int]], gpus: Sequence[Gpu], memory_mb: int, cores_per_device: int = 1
) -> list[DeviceConfig]:
    """Divide a machine into devices: each GPU with a core that feeds it, then sets of the other cores.

    Args:
        cores: the physical cores, each with the numbers of its hardware threads.
        gpus: the GPUs.
        memory_mb: the machine's memory for members in MB, which the sets of cores share evenly.
        cores_per_device: physical cores of a set; the last has what is left.

    Returns:
        At least one device. Where there are no more cores than GPUs, there are no sets of cores.
    """
    devices = [
        DeviceConfig(name=f"gpu{number}", cores=len(cores[number % len(cores)]), memory_mb=gpu.free_mb, gpu=number)
        for number, gpu in enumerate(gpus)
    ]
    rest = cores[len(gpus) :]
    sets = [rest[first : first + cores_per_device] for first in range(0, len(rest), cores_per_device)]
    return devices + [
        DeviceConfig(name=f"cpu{number}", cores=sum(map(len, each)), memory_mb=max(1, memory_mb // len(sets)))
        for number, each in enumerate(sets)
    ]


def usable_cores() -> set[int]:
    """Numbers of the cores that the scheduler (taskset, Slurm's cgroup) lets this process use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS cannot pin; the numbers then only say how many


def physical_cores(usable: Iterable[int], cpus: Path = _CPUS) -> list[tuple[int, ...]]:
    """The hardware threads of each physical core that are usable, in ascending order of the first.

    Args:
        usable: numbers of the cores (hardware threads) that may be used.
        cpus: where Linux describes them; where it does not, each is a physical core.
    """
    usable = set(usable)
    cores: dict[int, tuple[int, ...]] = {}
    for number in sorted(usable):
        if not any(number in siblings for siblings in cores.values()):
            cores[number] = tuple(sorted((_siblings(cpus, number) & usable) | {number}))
    return list(cores.values())


def _siblings(cpus: Path, number: int) -> set[int]:
    try:
        text = (cpus / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return {number}
    ranges = (part.partition("-") for part in text.strip().split(","))  # such as `0,32` or `0-1`
    return {each for first, _, last in ranges for each in range(int(first), int(last or first) + 1)}


def available_memory_mb() -> int:
    """Memory in MB that nothing uses now, and that this process's cgroups let it use."""
    free = psutil.virtual_memory().available
    limit = cgroup_free_bytes()
    return int(free if limit is None else min(free, limit)) // 2**20


def cgroup_free_bytes(own: Path = _OWN_CGROUP, cgroups: Path = _CGROUPS) -> int | None:
    """What the memory limits of this process's cgroups, versions 1 and 2, leave; None where there is no limit.

    Args:
        own: the file that names the process's cgroups.
        cgroups: where they are mounted.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = cgroups, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's, where nothing is mounted: the mount itself is then the container's.
        folder = mount / path.strip("/")
        for each in (folder, *folder.parents):
            if each.is_relative_to(mount):
                left.append(_free_bytes(each, *names))
    return min((each for each in left if each is not None), default=None)


def _free_bytes(folder: Path, limit: str, used: str) -> int | None:
    try:
        most = (folder / limit).read_text(encoding="ascii").strip()
        return None if most == "max" else max(0, int(most) - int((folder / used).read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
