"""The config's block `allocation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ensembleflow.config.base import Block, distinct

__all__ = ["MEASURED", "SIMULATED", "AllocationConfig", "DeviceConfig", "Engine", "is_simulated"]

MEASURED: Final = "measured"
"""Benches that run the ensemble on its devices."""

SIMULATED: Final = "simulated"
"""Benches in virtual time, from the members' profiles."""


class DeviceConfig(Block):
    """A device that members of an ensemble can be placed on."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="Name in the allocation's tables (letters, digits, `_`, `-`)."
    )
    cores: int = Field(1, ge=1, description="CPU cores of the device; of a GPU, those that feed it.")
    memory_mb: int = Field(2048, ge=1, description="Memory for members in MB; of a GPU, its own.")
    gpu: int | None = Field(
        None,
        ge=0,
        description="Number of the GPU among those that the job may use, in nvidia-smi's order (the first is 0); null "
        "is a set of CPU cores.",
    )
    speed: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="How many times as fast as the device that was profiled in its place, for planning with "
        "`bench: simulated` on hardware that is not at hand.",
    )


Engine = Literal["tensorflow", "onnxruntime", "openvino", "openvino_bfloat16"]
"""What computes a member: a Python package, and where it is not float32 the precision."""


def _default_devices() -> list[DeviceConfig]:
    return [DeviceConfig(name=f"cpu{i}", cores=1, memory_mb=6144) for i in range(2)]


class AllocationConfig(Block):
    """Where the members run, found by measuring."""

    devices: list[DeviceConfig] = Field(
        default_factory=_default_devices,
        min_length=1,
        description="The devices, in the order in which they are added: sets of CPU cores, or GPUs.",
    )
    device_counts: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(distinct)] = Field(
        [2],
        min_length=1,
        description="Allocations are searched for the first n devices, for each n of this list; the "
        "bundle uses the largest.",
    )
    batch_sizes: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(distinct)] = Field(
        [8, 32, 128], min_length=1, description="Batch sizes in images that the refinement may choose from."
    )
    engines: Annotated[list[Engine], Field(min_length=1), AfterValidator(distinct)] | None = Field(
        None,
        description="What may compute a member; the refinement chooses for each. Null is the engine with which costs "
        "were measured (`library.engine`). The others than `tensorflow` are optional packages; `openvino_bfloat16` is "
        "faster where the processor has bfloat16, and its answers are less precise.",
    )
    max_replicas: int = Field(
        1, ge=1, description="Devices that one member may run on at once, so that they share its images."
    )
    objective: Literal["throughput", "latency_p50", "latency_p99"] = Field(
        "throughput",
        description="What the refinement improves: images/s, or the median or 99th percentile of a request's latency.",
    )
    request_images: int = Field(1, ge=1, description="Images a request, where latency is measured.")
    latency_requests: int = Field(
        50, ge=0, description="Requests whose latency is measured in a bench repeat, one at a time; 0 leaves it out."
    )
    bench: Literal["measured", "simulated"] = Field(
        MEASURED,
        description="Whether an allocation is run to be scored, or only simulated from its members' profiles.",
    )
    max_benches: int = Field(24, ge=1, description="The refinement stops after this many benches of whole ensembles.")
    bench_images: int = Field(2000, ge=1, description="Images predicted in one bench repeat.")
    bench_repeats: int = Field(3, ge=1, description="Repeats of a bench; its score is their median.")

    @property
    def simulated(self) -> bool:
        """Whether allocations are only simulated, from their members' profiles."""
        return self.bench == SIMULATED

    @property
    def gpus(self) -> list[int]:
        """The numbers of the GPUs among the devices that are used."""
        used = self.devices[: max(self.device_counts)]
        return [device.gpu for device in used if device.gpu is not None]

    @model_validator(mode="after")
    def _combination(self) -> Self:
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("the names of `devices` must differ from each other")
        if max(self.device_counts) > len(self.devices):
            raise ValueError(f"`device_counts` must be at most the number of `devices`, {len(self.devices)}")
        if self.objective != "throughput" and not self.latency_requests:
            raise ValueError("`latency_requests` must be at least 1 where `objective` is a latency")
        if not self.simulated and any(device.speed != 1 for device in self.devices):
            raise ValueError(
                "the speed of `devices` must be 1 where `bench` is measured: it is what the bench finds out"
            )
        return self


def is_simulated(allocation: Mapping[str, Any]) -> bool:
    """Whether the allocation in a `devices-{n}.json` was only simulated."""
    return bool(allocation.get("bench", {}).get("kind") == SIMULATED)
