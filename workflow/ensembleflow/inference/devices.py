"""Devices: a GPU or a set of CPU cores of this machine, with a memory size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ensembleflow.config import DeviceConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference.machine import physical_cores, usable_cores
from ensembleflow.models.gpu import Gpu, visible_gpus

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
        speed: how many times as fast as its kind's profiles say; other than 1 only where it is simulated.
    """

    name: str
    core_ids: tuple[int, ...]
    memory_mb: int
    gpu: str | None = None
    gpu_name: str = ""
    speed: float = 1.0

    @property
    def kind(self) -> str:
        """What members run equally fast on: the number of cores (`cpu-2`), or the GPU's name."""
        return f"cpu-{len(self.core_ids)}" if self.gpu is None else self.gpu_name


def assign_cores(configs: Sequence[DeviceConfig], available: Sequence[int] | None = None) -> list[Device]:
    """Give each device its own cores, in order, out of those that this process may use, and find its GPU.

    Where there are fewer cores than asked for, the devices share them from the first one again, with a warning; a
    device never gets a core twice, so it may then have fewer than it asked for.

    Args:
        configs: the devices wanted.
        available: core numbers, taken in ascending order; by default those that the scheduler (taskset, Slurm's
            cgroup) allows, the hardware threads of a physical core one after the other.

    Raises:
        AllocationError: this machine lacks a GPU, or two devices are the same one.
    """
    if available is None:
        cores = [core for threads in physical_cores(usable_cores()) for core in threads]
    else:
        cores = sorted(available)
    wanted = sum(config.cores for config in configs)
    if wanted > len(cores):
        _LOG.warning(
            "the devices ask for %d cores but this process may use %d (%s): devices share cores, "
            "so their speed depends on each other",
            wanted,
            len(cores),
            ", ".join(map(str, sorted(cores))),
        )
    gpus = _find_gpus(configs)
    devices = []
    first = 0
    for config in configs:
        places = range(first, first + config.cores)
        core_ids = tuple(dict.fromkeys(cores[place % len(cores)] for place in places))
        device = Device(config.name, core_ids, config.memory_mb)
        if config.gpu is not None:
            device = replace(device, gpu=gpus[config.gpu].uuid, gpu_name=gpus[config.gpu].name)
        devices.append(device)
        first += config.cores
    return devices


def _find_gpus(configs: Sequence[DeviceConfig]) -> list[Gpu]:
    """The GPUs of this machine, if any device is one."""
    numbers = [config.gpu for config in configs if config.gpu is not None]
    if not numbers:
        return []
    if len(set(numbers)) != len(numbers):
        raise AllocationError(
            "two devices are the same GPU",
            where="allocation.devices",
            found=", ".join(f"{config.name}: gpu {config.gpu}" for config in configs if config.gpu is not None),
            expected="one device a GPU; several members may share it",
        )
    gpus = visible_gpus()
    missing = [config for config in configs if config.gpu is not None and config.gpu >= len(gpus)]
    if missing:
        raise AllocationError(
            "a GPU of the devices does not exist here",
            where=", ".join(f"allocation.devices: {config.name}: gpu {config.gpu}" for config in missing),
            found=", ".join(f"{number}: {gpu.name}" for number, gpu in enumerate(gpus)) or "no GPU",
            expected=f"{max(numbers) + 1} GPUs that this process may use",
            hint="ensembleflow devices shows what there is; in a Slurm job, ask for the GPUs",
        )
    return gpus
