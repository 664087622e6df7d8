"""The config's block `resources`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ensembleflow.config.base import Block
from ensembleflow.config.times import Minutes

__all__ = ["ResourcesConfig", "SearchResources", "SelectionResources"]


class RuleResources(Block):
    """What a job of one stage asks for. Never part of a result, so changing it reruns nothing."""

    threads: int = Field(1, ge=1, description="CPU cores a job.")
    mem_mb: int = Field(4000, ge=100, description="Memory a job in MB.")
    runtime_minutes: Minutes = Field(
        60, ge=1, description="Time limit a job in minutes, or as Slurm writes it (`4:00:00`, `2-00:00`)."
    )


class GpuResources(RuleResources):
    """What a job of a stage that can compute on a GPU asks for."""

    gpus: int = Field(
        0, ge=0, le=1, description="GPUs a job (`gpu=1` for Slurm), of which it can use one; with 0 it sees none."
    )


class SearchResources(GpuResources):
    """What a training job asks for."""

    concurrent_trials: int = Field(
        1,
        ge=1,
        le=64,
        description="Trials that a job trains side by side, sharing its GPU, cores and memory: small networks leave "
        "most of a modern GPU idle. At most `search.trials_per_job`.",
    )
    retries: int = Field(
        2,
        ge=0,
        description="How often a job that finished no epoch is tried again; an attempt that finished one starts the "
        "count anew. For other jobs it is Snakemake's `--retries`, which does not count here.",
    )


class LibraryResources(RuleResources):
    """What a prediction or cost job asks for."""

    gpus: int | None = Field(
        None,
        ge=0,
        le=1,
        description="GPUs a job (`gpu=1` for Slurm); null is 1 where `library.cost.device` is gpu, else 0.",
    )


class AllocationResources(RuleResources):
    """What an allocation job asks for: the devices' cores, GPUs and memory."""

    threads: int = Field(2, ge=1, description="CPU cores a job.")
    mem_mb: int = Field(8000, ge=100, description="Memory a job in MB.")
    gpus: int | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs a job (`gpu=N` for Slurm): at least those of `allocation.devices`; null is just as many, and "
        "none where `allocation.bench` is simulated.",
    )


class SelectionResources(GpuResources):
    """What a selection job asks for."""

    gpus: int = Field(
        0,
        ge=0,
        le=1,
        description="GPUs a job (`gpu=1` for Slurm): with 1, `selection.loss: cross_entropy` is summed there, with "
        "`cluster: threads`; other losses are summed on the CPU.",
    )

    cluster: Literal["threads", "processes", "slurm"] = Field(
        "threads",
        description="Who sums over the samples: `threads` of the job; `processes` of a Dask cluster on its machine; "
        "or `slurm`, processes of a Dask cluster on all nodes of the job's allocation.",
    )
    nodes: int = Field(1, ge=1, description="Machines a job, with `cluster: slurm`; `threads` and `mem_mb` are each's.")

    @model_validator(mode="after")
    def _combination(self) -> SelectionResources:
        if self.nodes > 1 and self.cluster != "slurm":
            raise ValueError("several nodes need cluster: slurm")
        if self.gpus > 0 and self.cluster != "threads":
            raise ValueError("`cluster` must be threads where `gpus` is above 0: one process sums on the GPU")
        return self


class ResourcesConfig(Block):
    """What the jobs of each stage ask the cluster for."""

    search: SearchResources = Field(default_factory=SearchResources, description="Training jobs.")
    library: LibraryResources = Field(
        default_factory=LibraryResources,
        description="Prediction and cost jobs (the cost job takes at least the cores that it measures).",
    )
    selection: SelectionResources = Field(default_factory=SelectionResources, description="Selection jobs.")
    allocation: AllocationResources = Field(
        default_factory=AllocationResources,
        description="Allocation jobs: they run the whole ensemble on the devices.",
    )
