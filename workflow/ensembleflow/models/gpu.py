"""What NVML tells of the GPUs that this process may use, and of the one that it computes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["Gpu", "gpu_energy_joules", "gpu_memory_bytes", "gpu_uuid", "select_visible", "visible_gpus"]


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        uuid: what tells it from all others, also for `CUDA_VISIBLE_DEVICES`.
        name: its make, such as `NVIDIA H100 80GB HBM3`.
        free_mb: memory in MB that nothing uses now.
    """

    uuid: str
    name: str
    free_mb: int


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, in the order of nvidia-smi; none where NVML is missing.

    `CUDA_VISIBLE_DEVICES` counts: a scheduler sets it for its jobs.
    """
    gpus = []
    with suppress(Exception):  # NVML is a driver's library: it may be missing or refuse anything
        nvml = _nvml()
        for place in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(place)
            free_mb = int(nvml.nvmlDeviceGetMemoryInfo(handle).free) // 2**20
            gpus.append(Gpu(str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle)), free_mb))
    return select_visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def select_visible(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those of a machine's GPUs that `CUDA_VISIBLE_DEVICES` names by number or (the start of) UUID; all if it is None.

    As CUDA does, the list is read up to the first name of no GPU.
    """
    if visible is None:
        return list(gpus)
    selected: list[Gpu] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        named = gpus[int(name) : int(name) + 1] if name.isdigit() else [g for g in gpus if g.uuid.startswith(name)]
        if len(named) != 1:
            break
        selected += named
    return sorted(selected, key=list(gpus).index)


def gpu_uuid() -> str | None:
    """The UUID of the first GPU that this process may use, or None where NVML or a GPU is missing."""
    with suppress(Exception):  # NVML is a driver's library: it may be missing or refuse anything
        return str(_nvml().nvmlDeviceGetUUID(_handle()))
    return None


def gpu_energy_joules() -> float | None:
    """Energy that this GPU has used since its driver was loaded, by all processes; None where it is not told."""
    with suppress(Exception):
        return float(_nvml().nvmlDeviceGetTotalEnergyConsumption(_handle())) / 1000
    return None


def gpu_memory_bytes() -> int | None:
    """Memory of this GPU that is in use, by all processes; None where it is not told.

    Of all, since NVML knows processes by the host's numbers, which a process in a container does not know.
    """
    with suppress(Exception):
        return int(_nvml().nvmlDeviceGetMemoryInfo(_handle()).used)
    return None


@cache
def _nvml() -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml


@cache
def _handle() -> Any:
    # Numbers are NVML's as well, since `configure_tensorflow` orders CUDA's devices by bus.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible.isdigit():
        return _nvml().nvmlDeviceGetHandleByIndex(int(visible))
    return _nvml().nvmlDeviceGetHandleByUUID(visible)
