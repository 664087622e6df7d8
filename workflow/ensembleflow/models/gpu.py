"""What NVML tells of the GPU that this process computes on."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any

__all__ = ["gpu_energy_joules", "gpu_memory_bytes", "gpu_uuid"]


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
