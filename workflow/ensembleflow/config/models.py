"""The config's one source: every key with its type, default, unit and meaning.

The JSON schema, the comments of `config/config.yaml` and the table of `config/README.md` are rendered
from these classes (`ensembleflow.config.render`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ensembleflow.config.base import Block, distinct
from ensembleflow.config.budget import Budget
from ensembleflow.config.dataset import DatasetConfig, SyntheticConfig
from ensembleflow.config.paper import PaperConfig
from ensembleflow.config.paths import ResultsFolder
from ensembleflow.config.resources import ResourcesConfig
from ensembleflow.config.search import Schedule, SearchConfig, SpaceConfig

__all__ = [
    "AllocationConfig",
    "BaselineConfig",
    "Config",
    "CostConfig",
    "DatasetConfig",
    "DeviceConfig",
    "Engine",
    "LibraryConfig",
    "PaperConfig",
    "PredictionsConfig",
    "ReportConfig",
    "ResourcesConfig",
    "Schedule",
    "SearchConfig",
    "SelectionConfig",
    "SpaceConfig",
    "SyntheticConfig",
]


class CostConfig(Block):
    """How a model's cost is measured: seconds for one device to predict `n_images` images."""

    device: Literal["cpu", "gpu"] = Field("cpu", description="The device that predicts.")
    threads: int = Field(1, ge=1, description="CPU cores that the measurement may use.")
    n_images: int = Field(2000, ge=1, description="Images predicted in one repeat (the paper's unit is 2,000).")
    batch_size: int = Field(100, ge=1, description="Images a call.")
    warmup_repeats: int = Field(
        1, ge=1, description="Repeats before the counted ones, each time a model is taken up (three times)."
    )
    repeats: int = Field(15, ge=3, description="Counted repeats a model; the cost is their median.")
    latency_requests: int = Field(
        200, ge=0, description="Requests of one image whose latency is measured a model (p50 and p99); 0 leaves it out."
    )


class PredictionsConfig(Block):
    """What is cached of the kept models' predictions."""

    every_class: bool = Field(
        True,
        description="Cache all class probabilities. Without them the cache is smaller by the number of classes, but "
        "only `selection.loss: cross_entropy` can select, and no other metric is known.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="How a probability is stored; `float16` halves the cache."
    )


class BaselineConfig(Block):
    """The floor that every ensemble is held against: what takes a person five minutes, with scikit-learn."""

    classifier: Literal["svm", "none"] = Field(
        "svm",
        description="`svm` is scikit-learn's `SVC(C=10)` on the pixels, images above 32 pixels a side shrunk; "
        "`none` leaves the baseline out.",
    )
    max_giga_multiply_adds: int = Field(
        200,
        ge=1,
        description="The most that fitting and testing it may take, in billions of multiplications (two or three a "
        "second and core): it learns from as many training images as that allows, and is left out where that is "
        "below a tenth of them.",
    )


class LibraryConfig(Block):
    """The library of models: what is kept, and what a prediction costs."""

    keep_fraction: float = Field(
        0.2, gt=0, le=1, description="Share of the study's models kept, the best by `search.metric`."
    )
    cost: CostConfig = Field(default_factory=CostConfig, description="The cost measurement.")
    predictions: PredictionsConfig = Field(
        default_factory=PredictionsConfig, description="The cache of the kept models' predictions."
    )
    baseline: BaselineConfig = Field(
        default_factory=BaselineConfig, description="The simple classifier that every ensemble is held against."
    )


class SelectionConfig(Block):
    """The ensemble selection."""

    budgets: Annotated[list[Budget], AfterValidator(distinct)] = Field(
        ["1x", "2x", "4x", "8x"],
        min_length=1,
        description="The most that an ensemble's summed cost may be: seconds (`320`), or a multiple of the "
        "kept models' median cost (`4x`); of another column of costs.csv by name (`parameter_bytes=2x`); several at "
        "once (`4x,parameter_bytes=2x`).",
    )
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1)]], AfterValidator(distinct)] = Field(
        [0.1, 0.01, 0.001],
        min_length=1,
        description="Weights w of the cost in SMOBF's score (the paper's equation 2); the best result by "
        "`loss` is taken.",
    )
    loss: Literal["cross_entropy", "error", "macro_f1_error", "brier"] = Field(
        "cross_entropy", description="The validation loss E of equation 2."
    )
    local_search: bool = Field(
        False,
        description="Go on from SMOBF's ensemble by swapping, dropping and adding members as long as that lowers the "
        "loss within the budget.",
    )
    certificate_nodes: int = Field(
        20_000,
        ge=0,
        description="Nodes that branch and bound may visit a budget to find the exact optimum, or a bound on it, and "
        "SMOBF's gap to it; 0 leaves it out.",
    )


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
    engines: Annotated[
        list[Engine],
        AfterValidator(distinct),
    ] = Field(
        ["tensorflow"],
        min_length=1,
        description="What may compute a member; the refinement chooses for each. The others than `tensorflow` are "
        "optional packages; `openvino_bfloat16` is faster where the processor has bfloat16, and its answers are "
        "less precise.",
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
        "measured",
        description="Whether an allocation is run to be scored, or only simulated from its members' profiles.",
    )
    max_benches: int = Field(24, ge=1, description="The refinement stops after this many benches of whole ensembles.")
    bench_images: int = Field(2000, ge=1, description="Images predicted in one bench repeat.")
    bench_repeats: int = Field(3, ge=1, description="Repeats of a bench; its score is their median.")

    @model_validator(mode="after")
    def _combination(self) -> Self:
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("the names of `devices` must differ from each other")
        if max(self.device_counts) > len(self.devices):
            raise ValueError(f"`device_counts` must be at most the number of `devices`, {len(self.devices)}")
        if self.objective != "throughput" and not self.latency_requests:
            raise ValueError("`latency_requests` must be at least 1 where `objective` is a latency")
        if self.bench == "measured" and any(device.speed != 1 for device in self.devices):
            raise ValueError(
                "the speed of `devices` must be 1 where `bench` is measured: it is what the bench finds out"
            )
        return self


class ReportConfig(Block):
    """How the report looks."""

    dpi: int = Field(150, ge=50, le=600, description="Resolution of PNG figures in dots per inch.")
    figure_width_inches: float = Field(6.5, gt=2, le=20, description="Width of a figure in inches.")


class Config(Block):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0, description="The study's seed: hyperparameters, weights, batches, augmentation.")
    results_dir: ResultsFolder = Field(
        "results", description="Folder of all artefacts. `~` and `$VARIABLE` are expanded, as in every path."
    )
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="The data.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="The hyperparameter search.")
    library: LibraryConfig = Field(default_factory=LibraryConfig, description="The library of models.")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="The ensemble selection.")
    allocation: AllocationConfig = Field(
        default_factory=AllocationConfig, description="The allocation of members to devices."
    )
    report: ReportConfig = Field(default_factory=ReportConfig, description="The report's look.")
    paper: PaperConfig = Field(default_factory=PaperConfig, description="The paper's tables and figures.")
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="What jobs ask for; never part of a result."
    )

    @property
    def study(self) -> str:
        """The study's name, `{dataset}-{algorithm}-s{seed}`."""
        return f"{self.dataset.name}-{self.search.algorithm}-s{self.seed}"

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if (self.library.cost.device == "gpu") != (self.resources.library.gpus > 0):
            raise ValueError(
                f"library.cost.device ({self.library.cost.device}) does not suit resources.library.gpus "
                f"({self.resources.library.gpus}): a cost on a GPU needs a GPU, one on the CPU none"
            )
        n_gpus = sum(device.gpu is not None for device in self.allocation.devices[: max(self.allocation.device_counts)])
        if self.allocation.bench == "measured" and n_gpus > self.resources.allocation.gpus:
            raise ValueError(
                f"`allocation.devices` has {n_gpus} GPUs but `resources.allocation.gpus` is "
                f"{self.resources.allocation.gpus}: an allocation job would not see them"
            )
        if n_kept(self.search.n_trials, self.library.keep_fraction) == 0:
            raise ValueError("the share `library.keep_fraction` of `search.n_trials` must be at least 1 model, rounded")
        if self.search.precision != "float32" and self.resources.search.gpus == 0:
            raise ValueError("`search.precision` must be float32 where `resources.search.gpus` is 0")
        if self.resources.search.concurrent_trials > self.search.trials_per_job:
            raise ValueError(
                "`resources.search.concurrent_trials` must be at most `search.trials_per_job`: a job has no other "
                "trials to train side by side"
            )
        if self.selection.loss != "cross_entropy" and not self.library.predictions.every_class:
            raise ValueError(
                "`selection.loss` must be cross_entropy where `library.predictions.every_class` is false: the other "
                "losses need the probabilities of every class"
            )
        return self


def n_kept(n_models: int, keep_fraction: float) -> int:
    """How many of `n_models` are kept: their share, rounded to the nearest whole number."""
    return int(n_models * keep_fraction + 0.5)
