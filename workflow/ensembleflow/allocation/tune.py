"""From members and devices to a fast allocation: profile, place, refine."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.allocation.allocation_file import allocation_result
from ensembleflow.allocation.benches.measured import MeasuredBench
from ensembleflow.allocation.benches.profile import Profile, Recall, profile_members
from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import SimulatedBench
from ensembleflow.allocation.calibrate import calibrate, calibration_allocations
from ensembleflow.allocation.hill_climb import Refinement
from ensembleflow.allocation.refine_allocation import refine_allocation
from ensembleflow.allocation.worst_fit import carry_over, worst_fit
from ensembleflow.config import AllocationConfig, DeviceConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference.deployment import Deployment, StopRule
from ensembleflow.inference.devices import Device, assign_cores
from ensembleflow.inference.fork_server import ForkServer
from ensembleflow.inference.machine import available_memory_mb, detect_devices, usable_cores
from ensembleflow.inference.pipeline import Pipeline
from ensembleflow.inference.placement import Allocation, Member
from ensembleflow.inference.request import Limits
from ensembleflow.inference.worker import MemberError
from ensembleflow.io import warn_of_other_work
from ensembleflow.models.engines import DEFAULT_ENGINE, prepare_members
from ensembleflow.models.gpu import visible_gpus

__all__ = ["Ensemble", "Tuning", "simulated_devices", "tune_allocation"]

_LOG = logging.getLogger("ensembleflow.allocation")

# Enough to compare engines' answers with; calls repeat them up to the batch size.
_PROFILE_IMAGES = 256


@dataclass(frozen=True)
class Ensemble:
    """What is to be allocated.

    Attributes:
        members: with their exported functions, in the ensemble's order.
        images: uint8 or float32 (images, *image_shape), to be predicted in benches.
        n_classes: number of classes.
        expected: by model id, what it answers to the first of `images`, (at most images, classes); engines must.
        expected_rounding: by how much that may be off by itself.
        stop_rule: of a cascade; None where each image is shown to all members.
        shares: of a cascade, the share of the images that each member sees, by model id.
    """

    members: Sequence[Member]
    images: npt.NDArray[Any]
    n_classes: int
    expected: Mapping[str, npt.NDArray[np.floating[Any]]] | None = None
    expected_rounding: float = 0.0
    stop_rule: StopRule | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The members' ids."""
        return [member.model for member in self.members]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels), or of other samples their shape."""
        return self.images.shape[1:]

    def pipeline(
        self, devices: Sequence[Device], allocation: Allocation, fork_server: ForkServer | None = None
    ) -> Pipeline:
        """The ensemble under an allocation, to be used in a `with` block."""
        dtype = self.images.dtype.name
        deployment = Deployment(
            self.members,
            devices,
            self.image_shape,
            self.n_classes,
            fork_server=fork_server,
            stop_rule=self.stop_rule,
            image_dtype=dtype,
        )
        return Pipeline(deployment, allocation)


@dataclass(frozen=True)
class Tuning:
    """What `tune_allocation` found.

    Attributes:
        devices: that the allocation is on.
        profiles: everything profiled, failures included.
        table: the profiles to look up.
        bench: what scored the allocations.
        found: the search.
        config: as asked.
        other_work_percent: how much others used the busiest of the devices' cores before or after the benches; None
            where nothing was measured.
    """

    devices: Sequence[Device]
    profiles: Sequence[Profile]
    table: ProfileTable
    bench: MeasuredBench | SimulatedBench
    found: Refinement[Allocation]
    config: AllocationConfig
    other_work_percent: float | None = None

    def result(self, **about: Any) -> dict[str, Any]:
        """The content of `devices-{n}.json`; `about` are the study and the budget."""
        about |= {"other_work_percent": self.other_work_percent}
        return allocation_result(self.found, self.devices, self.table, self.bench, self.config, **about)


def tune_allocation(
    ensemble: Ensemble,
    config: AllocationConfig,
    *,
    title: str = "allocation",
    old: Allocation | None = None,
    check: Callable[[Pipeline], None] | None = None,
    recall: Recall | None = None,
) -> Tuning:
    """Profile the members on all devices of the config, place them, and refine the allocation.

    With `bench: simulated` the devices need not exist: see `simulated_devices`.

    Args:
        ensemble: what to allocate.
        config: devices, engines (null is TensorFlow), batch sizes, objective, and how long to search.
        title: what the log calls the search.
        old: an allocation to start from, as far as its devices are among the config's; by default worst-fit.
        check: called with the running ensemble in the allocation found; not where benches are simulated.
        recall: where profiles may come from that were measured before; by default all are measured.

    Raises:
        AllocationError: a member can run nowhere or fits on no device, or no allocation could run.
        EngineError: an engine is not installed, or a member cannot be converted for it.
    """
    with _prepared(ensemble, config) as prepared, ForkServer() as fork_server:
        task = _Task(prepared, config, title, old, recall, fork_server)
        return _tune_simulated(task) if config.simulated else _tune_measured(task, check)


def simulated_devices(configs: Sequence[DeviceConfig]) -> tuple[list[Device], list[Device]]:
    """Devices as wished for, and for each the device of this machine that is profiled in its place.

    A GPU is profiled on this machine's first GPU, or, where there is none, on as many of its cores as the config says;
    a set of cores on as many cores. The simulated one is `speed` times as fast.

    Raises:
        AllocationError: this machine has fewer cores than a device.
    """
    has_gpu = bool(visible_gpus())
    wished, here = [], []
    for config in configs:
        gpu = 0 if config.gpu is not None and has_gpu else None
        (real,) = assign_cores([config.model_copy(update={"gpu": gpu})])
        if len(real.core_ids) < config.cores:
            raise AllocationError(
                "a device cannot be simulated",
                where=f"allocation.devices: {config.name}: cores",
                found=config.cores,
                expected=f"at most {len(real.core_ids)}, as this machine has: its speed is a multiple of what is "
                "profiled here",
                hint="give it fewer cores and a higher speed",
            )
        here.append(real)
        kind = {} if config.gpu is None else {"gpu": f"simulated-{config.gpu}", "gpu_name": real.kind}
        wished.append(Device(config.name, real.core_ids, config.memory_mb, speed=config.speed, **kind))
    return wished, here


def _engines(config: AllocationConfig) -> Sequence[str]:
    return config.engines or [DEFAULT_ENGINE]


@contextmanager
def _prepared(ensemble: Ensemble, config: AllocationConfig) -> Iterator[Ensemble]:
    with tempfile.TemporaryDirectory(prefix="ensembleflow-members-") as folder:
        exported = [member.exported for member in ensemble.members]
        paths = prepare_members(exported, Path(folder), _engines(config))
        members = [Member(member.model, path) for member, path in zip(ensemble.members, paths, strict=True)]
        yield replace(ensemble, members=members)


@dataclass(frozen=True)
class _Task:
    """What `tune_allocation` is asked for, its members prepared for the engines, and what processes are forked from."""

    ensemble: Ensemble
    config: AllocationConfig
    title: str
    old: Allocation | None
    recall: Recall | None
    fork_server: ForkServer

    def profiles(self, devices: Sequence[Device]) -> list[Profile]:
        warn_of_other_work(core for device in devices for core in device.core_ids)
        return profile_members(
            self.ensemble.members,
            devices,
            _engines(self.config),
            self.config.batch_sizes,
            self.ensemble.images[:_PROFILE_IMAGES],
            expected=self.ensemble.expected,
            expected_rounding=self.ensemble.expected_rounding,
            fork_server=self.fork_server,
            recall=self.recall,
        )

    def start(self, devices: Sequence[Device], table: ProfileTable) -> Allocation:
        if self.old is None:
            return worst_fit(self.ensemble.models, devices, table)
        return carry_over(self.old, self.ensemble.models, devices, table)


def _tune_measured(task: _Task, check: Callable[[Pipeline], None] | None) -> Tuning:
    ensemble, config = task.ensemble, task.config
    devices = assign_cores(config.devices)
    profiles = task.profiles(devices)
    table = ProfileTable(profiles, task.ensemble.shares)
    start = task.start(devices, table)
    try:
        with ensemble.pipeline(devices, start, task.fork_server) as pipeline:
            # The members wait now: whatever keeps their cores busy will falsify the benches.
            cores = [core for device in devices for core in device.core_ids]
            before = warn_of_other_work(cores)
            bench = MeasuredBench(pipeline, ensemble.images, config, task.title)
            found = refine_allocation(start, devices, table, bench, config)
            other_work_percent = max(before, warn_of_other_work(cores))
            if check is not None:
                pipeline.reconfigure(found.best.state)
                check(pipeline)
    except MemberError as error:
        largest = max(each.batch_size for each in start)
        error.hint = f"if memory is the reason, lower the largest of allocation.batch_sizes ({largest})"
        raise
    return Tuning(devices, profiles, table, bench, found, config, other_work_percent)


def _tune_simulated(task: _Task) -> Tuning:
    config = task.config
    devices, here = simulated_devices(config.devices)
    profiles = task.profiles(here)
    table = ProfileTable(profiles, task.ensemble.shares)
    start = task.start(devices, table)
    bench = _simulated(task.ensemble, devices, table, config)
    bench = replace(bench, calibration=calibrate(*_benched_here(task, here, table)))
    return Tuning(devices, profiles, table, bench, refine_allocation(start, devices, table, bench, config), config)


def _simulated(
    ensemble: Ensemble, devices: Sequence[Device], table: ProfileTable, config: AllocationConfig
) -> SimulatedBench:
    # Large images make smaller batches, as the dispatcher makes them.
    most = Limits().batch_images(ensemble.image_shape, ensemble.images.dtype.name)
    limits = replace(Limits(), max_batch_images=most)
    return SimulatedBench(
        devices,
        table,
        objective=config.objective,
        bench_images=config.bench_images,
        request_images=config.request_images,
        latency_requests=config.latency_requests,
        limits=limits,
    )


def _benched_here(
    task: _Task, here: Sequence[Device], table: ProfileTable
) -> tuple[SimulatedBench, list[tuple[Allocation, Score]]]:
    """The simulation of this machine's own devices, and a few allocations with their real scores on them."""
    ensemble, config, title = task.ensemble, task.config, task.title
    devices = _alike_here(here[0], len(ensemble.members))
    bench = _simulated(ensemble, devices, table, config)
    allocations = calibration_allocations(ensemble.models, devices, table, config.bench_images)
    if not allocations:
        _LOG.warning("%s: the simulation is not calibrated: the ensemble does not fit on this machine", title)
        return bench, []
    with ensemble.pipeline(devices, allocations[0], task.fork_server) as pipeline:
        real = MeasuredBench(pipeline, ensemble.images, config, f"{title}, to calibrate the simulation")
        return bench, [(allocation, real(allocation)) for allocation in allocations]


def _alike_here(device: Device, n_most: int) -> list[Device]:
    """This machine's devices of a device's kind, as many as there are, up to a number."""
    if device.gpu is not None:
        return [each for each in assign_cores(detect_devices()) if each.kind == device.kind][:n_most]
    n_cores = len(device.core_ids)
    n = min(len(usable_cores()) // n_cores, n_most)
    memory_mb = max(1, available_memory_mb() // n)
    return assign_cores([DeviceConfig(name=f"cpu{i}", cores=n_cores, memory_mb=memory_mb) for i in range(n)])
