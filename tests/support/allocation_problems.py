"""Made-up members, devices and profiles for the allocation search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensembleflow.allocation import Calibration, Profile, ProfileTable, SimulatedBench
from ensembleflow.inference import Allocation, Device, Placement

BATCH_SIZES = (8, 32, 128)


@dataclass(frozen=True)
class Problem:
    """An ensemble to allocate, and the simulated machine that says how fast it is."""

    models: tuple[str, ...]
    devices: tuple[Device, ...]
    table: ProfileTable
    bench: SimulatedBench

    def allocations(self) -> Iterator[Allocation]:
        """All that fit in memory, without replicas."""
        options = [
            [
                Placement(model, device.name, run.batch_size, run.engine)
                for device in self.devices
                for run in self.table.runs(model, device.kind)
            ]
            for model in self.models
        ]
        by_name = {device.name: device for device in self.devices}
        for allocation in itertools.product(*options):
            used_mb = self.table.used_mb(allocation, by_name)
            if all(used_mb[device.name] <= device.memory_mb for device in self.devices):
                yield allocation


def name(place: int) -> str:
    return f"trial-{place:05d}"


def random_problem(
    seed: int, n_models: int, n_devices: int, objective: str = "throughput", engines: tuple[str, ...] = ("tensorflow",)
) -> Problem:
    """Members and devices of mixed speeds and sizes, tight and ample memory, members that fail in large batches.

    What a batch loses besides its calls, and how much processes and devices slow each other down, is drawn as well:
    the search does not know of it.
    """
    random = np.random.default_rng(seed)
    models = tuple(name(place) for place in range(n_models))
    least_mb = 600 * max(1, n_models // n_devices)
    devices = tuple(
        Device(f"d{place}", tuple(range(random.integers(1, 4))), int(random.integers(least_mb, 1500 * n_models)))
        for place in range(n_devices)
    )
    profiles = []
    for model, engine in itertools.product(models, engines):
        image_seconds, call_seconds = random.lognormal(-7, 1), random.lognormal(-6, 1)
        base_mb, knee_images = random.uniform(100, 500), random.choice([16, 64, 10**9])
        for kind in sorted({device.kind for device in devices}):
            faster = int(kind.removeprefix("cpu-")) ** random.uniform(0.3, 1)
            for size in BATCH_SIZES:
                seconds = call_seconds + size * image_seconds / faster * (1.5 if size > knee_images else 1)
                seconds *= random.uniform(0.9, 1.1)
                memory_mb = base_mb + size * random.uniform(0.2, 1)
                failure = "out of memory" if size == max(BATCH_SIZES) and random.uniform() < 0.05 else ""
                speed = 0.0 if failure else size / seconds
                profiles.append(Profile(model, kind, engine, size, speed, 0.0 if failure else memory_mb, failure))
    table = ProfileTable(profiles)
    lost = Calibration(random.uniform(0, 0.004), random.uniform(-0.3, 0.4), random.uniform(0, 0.5))
    bench = SimulatedBench(
        devices,
        table,
        lost,
        objective,  # type: ignore[arg-type]
        bench_images=400,
        request_images=8,
        latency_requests=0 if objective == "throughput" else 1,
    )
    return Problem(models, devices, table, bench)


def even_profiles(
    models: dict[str, float],
    kinds: tuple[str, ...] = ("cpu-1",),
    sizes: tuple[int, ...] = (8, 32),
    engines: tuple[str, ...] = ("tensorflow",),
    memory_mb: dict[str, float] | None = None,
) -> list[Profile]:
    """Profiles of members with so many images/s at every batch size."""
    return [
        Profile(model, kind, engine, size, speed, (memory_mb or {}).get(model, 100.0))
        for (model, speed), kind, engine, size in itertools.product(models.items(), kinds, engines, sizes)
    ]
