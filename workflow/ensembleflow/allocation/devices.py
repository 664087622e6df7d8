"""Devices: a GPU or a set of CPU cores of this machine, with a memory size."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ensembleflow.config.models import DeviceConfig

__all__ = ["Device", "assign_cores"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """What members can be placed on: a set of CPU cores, or a GPU with the cores that feed it.

    Attributes:
        name: its name in the allocation's tables.
        core_ids: the cores' numbers on this machine, each once.
        memory_mb: memory for members in MB; a GPU's own.
        gpu: the GPU's UUID or number for `CUDA_VISIBLE_DEVICES`; None for a set of cores.
        gpu_name: what the GPU is, such as `NVIDIA H100`; empty for a set of cores.
    """

    name: str
    core_ids: tuple[int, ...]
    memory_mb: int
    gpu: str | None = None
    gpu_name: str = ""

    @property
    def kind(self) -> str:
        """What members run equally fast on: the number of cores (`cpu-2`), or the GPU's name."""
        return f"cpu-{len(self.core_ids)}" if self.gpu is None else self.gpu_name


def assign_cores(configs: Sequence[DeviceConfig], available: Sequence[int] | None = None) -> list[Device]:
    """Give each device its own cores, in order, out of those that this process may use.

    Where there are fewer cores than asked for, the devices share them from the first one again, with a
    warning; a device never gets a core twice, so it may then have fewer than it asked for.

    Args:
        configs: the devices wanted.
        available: core numbers; by default those that the scheduler (taskset, Slurm's cgroup) allows.
    """
    cores = sorted(_schedulable_cores() if available is None else available)
    wanted = sum(config.cores for config in configs)
    if wanted > len(cores):
        _LOG.warning(
            "the devices ask for %d cores but this process may use %d (%s): devices share cores, "
            "so their speed depends on each other",
            wanted,
            len(cores),
            ", ".join(map(str, cores)),
        )
    devices = []
    first = 0
    for config in configs:
        places = range(first, first + config.cores)
        core_ids = dict.fromkeys(cores[place % len(cores)] for place in places)
        devices.append(Device(config.name, tuple(core_ids), config.memory_mb))
        first += config.cores
    return devices


def _schedulable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS cannot pin; the numbers then only say how many
