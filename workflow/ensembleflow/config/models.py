"""The config's one source: every key with its type, default, unit and meaning.

The JSON schema, the comments of `config/config.yaml` and the table of `config/README.md` are rendered
from these classes (`ensembleflow.config.render`).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

__all__ = [
    "AllocationConfig",
    "Config",
    "CostConfig",
    "DatasetConfig",
    "DeviceConfig",
    "LibraryConfig",
    "ReportConfig",
    "ResourcesConfig",
    "SearchConfig",
    "SelectionConfig",
    "SpaceConfig",
    "budget_name",
]

Metric = Literal["error", "macro_f1_error", "cross_entropy"]


class Block(BaseModel):
    """A block of the config: unknown keys are errors, values never change after validation.

    A validator's message says what must be, and puts the keys that it is about in backticks:
    `ensembleflow.config.faults` looks up their values and lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: Any) -> Any:
        # No key is a switch, and pydantic would read `yes` as the number 1.
        if any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("must be neither true nor false")
        return value


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("must be `[lowest, highest]`, the lowest first")
    return bounds


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(map(str, values))) != len(values):
        raise ValueError("must be values that differ from each other")
    return values


FloatRange = Annotated[tuple[float, float], AfterValidator(_ascending)]
IntRange = Annotated[tuple[int, int], AfterValidator(_ascending)]


def budget_name(value: object) -> str:
    """The name of a budget in files and tables: `4x` for a multiple, `320` for seconds.

    Raises:
        ValueError: `value` is neither a positive number nor a positive number followed by `x`.
    """
    text = str(value).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(x?)", text)
    if isinstance(value, bool) or match is None or float(match[1]) <= 0:
        raise ValueError("must be seconds (320) or a multiple of the median cost (4x), above 0")
    return f"{Decimal(match[1]).normalize():f}{match[2]}"


Budget = Annotated[
    str,
    BeforeValidator(budget_name),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[0-9]*\.?[0-9]*[xX]?$"}]}
    ),
]


class DatasetConfig(Block):
    """The labelled images and how they are split."""

    name: str = Field(
        "digits",
        pattern=r"^[A-Za-z0-9_]+$",
        description="Name of the dataset in paths and tables (letters, digits and `_`).",
    )
    source: Literal["digits", "cifar100", "image_folder"] = Field(
        "digits",
        description="Where the images come from: `digits` (scikit-learn's, needs nothing), `cifar100` "
        "(its standard Python archive), `image_folder` (one folder of images a class).",
    )
    path: str | None = Field(
        None,
        description="The archive or folder to read; not used by `digits`.",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Height and width in pixels to which `image_folder` images are resized.",
    )
    valid_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images used for validation, stratified by class "
        "(`cifar100`: share of its 500 training images a class).",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images used for the test, stratified by class "
        "(`cifar100` has its own test images and does not use it).",
    )
    split_seed: int = Field(
        0,
        ge=0,
        description="Seed of the split. It belongs to the data: studies of different `seed` share one split.",
    )

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.source != "digits" and self.path is None:
            raise ValueError(f"`path` must be set where `source` is {self.source}")
        if self.source == "image_folder" and self.image_size is None:
            raise ValueError("`image_size` must be set where `source` is image_folder")
        if self.source != "cifar100" and self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                "the sum of `valid_fraction` and `test_fraction` must be below 1: the rest is for training"
            )
        return self


class SpaceConfig(Block):
    """The hyperparameter space (the paper's Table 5). A range is `[lowest, highest]`, both included."""

    learning_rate: FloatRange = Field((0.001, 0.01), description="Adam's learning rate, range.")
    batch_size: IntRange = Field((16, 48), description="Training batch size in images, range.")
    l2: FloatRange = Field((0.0, 0.001), description="L2 regularisation factor of the kernels, range.")
    block: Annotated[list[Literal["v1", "v2", "next"]], AfterValidator(_distinct)] = Field(
        ["v1", "v2", "next"],
        min_length=1,
        description="Residual block: `v1`, `v2` (pre-activation), `next` (grouped convolutions).",
    )
    activation: Annotated[list[Literal["tanh", "relu", "elu"]], AfterValidator(_distinct)] = Field(
        ["tanh", "relu", "elu"], min_length=1, description="Activation function, choices."
    )
    stem_filters: IntRange = Field((8, 24), description="Filters of the first convolution, range.")
    stage_filters: IntRange = Field(
        (8, 24), description="Filters of the first stage, range; each later stage doubles them."
    )
    blocks_stage_1: IntRange = Field((1, 2), description="Residual blocks in the first stage, range.")
    blocks_stage_2: IntRange = Field((1, 2), description="Residual blocks in the second stage, range.")
    blocks_stage_3: IntRange = Field((1, 1), description="Residual blocks in the third stage, range.")
    blocks_stage_4: IntRange = Field((1, 1), description="Residual blocks in the fourth stage, range.")
    max_zoom: FloatRange = Field((0.0, 0.2), description="Augmentation: largest relative zoom, range.")
    max_translation: FloatRange = Field(
        (0.0, 0.15), description="Augmentation: largest shift as a share of the image's side, range."
    )
    max_shear: FloatRange = Field((0.0, 0.2), description="Augmentation: largest shear in radians, range.")
    max_channel_shift: FloatRange = Field(
        (0.0, 0.2), description="Augmentation: largest shift of a channel as a share of the full scale, range."
    )
    max_rotation_degrees: IntRange = Field((0, 15), description="Augmentation: largest rotation in degrees, range.")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("batch_size", "stem_filters", "stage_filters", *(f"blocks_stage_{i}" for i in range(1, 5))):
            if getattr(self, name)[0] < 1:
                raise ValueError(f"`{name}` must start at 1 or more")
        if self.learning_rate[0] <= 0:
            raise ValueError("`learning_rate` must start above 0")
        for name in ("l2", "max_zoom", "max_translation", "max_shear", "max_channel_shift", "max_rotation_degrees"):
            if getattr(self, name)[0] < 0:
                raise ValueError(f"`{name}` must start at 0 or more")
        if self.max_zoom[1] >= 1:
            raise ValueError("`max_zoom` must end below 1")
        return self


class SearchConfig(Block):
    """The hyperparameter search."""

    algorithm: Literal["random", "hyperband"] = Field(
        "hyperband",
        description="`random`: every trial runs all epochs; `hyperband`: random sampling with Optuna's "
        "Hyperband pruner.",
    )
    n_trials: int = Field(48, ge=1, description="Trials of the study. Raising it keeps the finished ones.")
    trials_per_job: int = Field(
        12,
        ge=1,
        description="Consecutive trials that one job trains. 1 where a trial takes minutes; more where "
        "starting TensorFlow (5 to 10 s) would dominate.",
    )
    max_epochs: int = Field(9, ge=1, description="Epochs of a trial that is never stopped (Hyperband's max_resource).")
    reduction_factor: int = Field(3, ge=2, description="Hyperband keeps the best 1/reduction_factor at each rung.")
    metric: Metric = Field(
        "error",
        description="Validation metric to minimise, and to rank the library by: `error` (1 - accuracy), "
        "`macro_f1_error` (1 - macro F1), `cross_entropy`.",
    )
    space: SpaceConfig = Field(default_factory=SpaceConfig, description="The hyperparameter space.")

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.n_trials < self.trials_per_job:
            raise ValueError("`n_trials` must be at least `trials_per_job`")
        return self


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


class LibraryConfig(Block):
    """The library of models: what is kept, and what a prediction costs."""

    keep_fraction: float = Field(
        0.2, gt=0, le=1, description="Share of the study's models kept, the best by `search.metric`."
    )
    cost: CostConfig = Field(default_factory=CostConfig, description="The cost measurement.")


class SelectionConfig(Block):
    """The ensemble selection."""

    budgets: Annotated[list[Budget], AfterValidator(_distinct)] = Field(
        ["1x", "2x", "4x", "8x"],
        min_length=1,
        description="The most that an ensemble's summed cost may be: seconds (`320`), or a multiple of the "
        "kept models' median cost (`4x`).",
    )
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1)]], AfterValidator(_distinct)] = Field(
        [0.1, 0.01, 0.001],
        min_length=1,
        description="Weights w of the cost in SMOBF's score (the paper's equation 2); the best result by "
        "`loss` is taken.",
    )
    loss: Literal["cross_entropy", "error", "macro_f1_error", "brier"] = Field(
        "cross_entropy", description="The validation loss E of equation 2."
    )


class DeviceConfig(Block):
    """A device that members of an ensemble can be placed on."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="Name in the allocation's tables (letters, digits, `_`, `-`)."
    )
    cores: int = Field(1, ge=1, description="CPU cores of the device.")
    memory_mb: int = Field(2048, ge=1, description="Memory for members in MB.")


def _default_devices() -> list[DeviceConfig]:
    return [DeviceConfig(name=f"cpu{i}", cores=1, memory_mb=6144) for i in range(2)]


class AllocationConfig(Block):
    """Where the members run, found by measuring."""

    devices: list[DeviceConfig] = Field(
        default_factory=_default_devices,
        min_length=1,
        description="The devices, in the order in which they are added; here sets of CPU cores.",
    )
    device_counts: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(_distinct)] = Field(
        [2],
        min_length=1,
        description="Allocations are searched for the first n devices, for each n of this list; the "
        "bundle uses the largest.",
    )
    batch_sizes: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(_distinct)] = Field(
        [8, 32, 128], min_length=1, description="Batch sizes in images that the refinement may choose from."
    )
    max_benches: int = Field(16, ge=1, description="The refinement stops after this many benches of whole ensembles.")
    bench_images: int = Field(2000, ge=1, description="Images predicted in one bench repeat.")
    bench_repeats: int = Field(3, ge=1, description="Repeats of a bench; its score is their median.")

    @model_validator(mode="after")
    def _combination(self) -> Self:
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("the names of `devices` must differ from each other")
        if max(self.device_counts) > len(self.devices):
            raise ValueError(f"`device_counts` must be at most the number of `devices`, {len(self.devices)}")
        return self


class ReportConfig(Block):
    """How the report looks."""

    dpi: int = Field(150, ge=50, le=600, description="Resolution of PNG figures in dots per inch.")
    figure_width_inches: float = Field(6.5, gt=2, le=20, description="Width of a figure in inches.")


class RuleResources(Block):
    """What a job of one stage asks for. Never part of a result, so changing it reruns nothing."""

    threads: int = Field(1, ge=1, description="CPU cores a job.")
    mem_mb: int = Field(4000, ge=100, description="Memory a job in MB.")
    runtime_minutes: int = Field(60, ge=1, description="Time limit a job in minutes.")


class GpuResources(RuleResources):
    """What a job of a stage that can compute on a GPU asks for."""

    gpus: int = Field(0, ge=0, le=16, description="GPUs a job (`gpu=1` for Slurm); with 0 a job sees none.")


class AllocationResources(RuleResources):
    """What an allocation job asks for: the devices' cores and memory."""

    threads: int = Field(2, ge=1, description="CPU cores a job.")
    mem_mb: int = Field(8000, ge=100, description="Memory a job in MB.")


class ResourcesConfig(Block):
    """What the jobs of each stage ask the cluster for."""

    search: GpuResources = Field(default_factory=GpuResources, description="Training jobs.")
    library: GpuResources = Field(
        default_factory=GpuResources,
        description="Prediction and cost jobs (the cost job takes at least the cores that it measures).",
    )
    allocation: AllocationResources = Field(
        default_factory=AllocationResources,
        description="Allocation jobs: they run the whole ensemble on the devices.",
    )


class Config(Block):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0, description="The study's seed: hyperparameters, weights, batches, augmentation.")
    results_dir: str = Field("results", min_length=1, description="Folder of all artefacts.")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="The data.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="The hyperparameter search.")
    library: LibraryConfig = Field(default_factory=LibraryConfig, description="The library of models.")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="The ensemble selection.")
    allocation: AllocationConfig = Field(
        default_factory=AllocationConfig, description="The allocation of members to devices."
    )
    report: ReportConfig = Field(default_factory=ReportConfig, description="The report's look.")
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
        if n_kept(self.search.n_trials, self.library.keep_fraction) == 0:
            raise ValueError("the share `library.keep_fraction` of `search.n_trials` must be at least 1 model, rounded")
        return self


def n_kept(n_models: int, keep_fraction: float) -> int:
    """How many of `n_models` are kept: their share, rounded to the nearest whole number."""
    return int(n_models * keep_fraction + 0.5)
