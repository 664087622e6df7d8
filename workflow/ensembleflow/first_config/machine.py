"""Where the workflow is to run: this machine, or a Slurm cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ensembleflow.config import DeviceConfig
from ensembleflow.inference.machine import available_memory_mb, physical_cores, plan_devices, usable_cores
from ensembleflow.models.gpu import Gpu, visible_gpus

__all__ = ["CLUSTER_JOBS", "Machine", "slurm_cluster", "this_machine"]

CLUSTER_JOBS = 16
"""Search jobs at once on a cluster, where nothing is said."""

# More of them make the search for an allocation longer, and the ensembles of a first run have few members.
_MOST_CORE_SETS = 4
_MEMORY_STEP_MB = 1000


@dataclass(frozen=True)
class Machine:
    """What search jobs and ensembles may use.

    Attributes:
        jobs: search jobs at once.
        threads: CPU cores a search job.
        gpus: GPUs a search job, 0 or 1.
        cluster: whether jobs are Slurm's.
        devices: those that ensembles are placed on; none where they are not known.
        name: what it is, in words.
    """

    jobs: int
    threads: int
    gpus: int
    cluster: bool
    devices: tuple[DeviceConfig, ...]
    name: str


def this_machine(gpus: int | None = None) -> Machine:
    """The cores that this process may use, and its first GPU, unless `gpus` is 0."""
    found = visible_gpus() if gpus is None or gpus else []
    return _of_cores(physical_cores(usable_cores()), found[:1], available_memory_mb())


def _of_cores(cores: Sequence[Sequence[int]], gpus: Sequence[Gpu], memory_mb: int) -> Machine:
    n_threads = sum(map(len, cores))
    cores_per_device = max(1, -(-(len(cores) - len(gpus)) // _MOST_CORE_SETS))
    devices = tuple(
        each.model_copy(update={"memory_mb": max(each.memory_mb // _MEMORY_STEP_MB * _MEMORY_STEP_MB, 1000)})
        for each in plan_devices(cores, gpus, memory_mb, cores_per_device)
    )
    told = f"{n_threads} core{'s' if n_threads > 1 else ''}"
    if gpus:
        return Machine(1, min(4, n_threads), 1, False, devices, f"this machine: {gpus[0].name} and {told}")
    return Machine(n_threads, 1, 0, False, devices, f"this machine: {told}, no GPU")


def slurm_cluster(jobs: int = CLUSTER_JOBS, gpus: int = 0) -> Machine:
    """A Slurm cluster that runs so many search jobs at once.

    Args:
        jobs: search jobs at once.
        gpus: GPUs a search job, 0 or 1.
    """
    each = "a GPU each" if gpus else "a core each"
    return Machine(
        jobs, 4 if gpus else 1, gpus, True, (), f"a Slurm cluster: {jobs} job{'s' if jobs > 1 else ''} at once, {each}"
    )
