"""The config's block `search`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ensembleflow.config.base import Block, Metric, distinct
from ensembleflow.config.paths import expanded
from ensembleflow.config.ranges import FloatRange, IntRange, read_values, written_values
from ensembleflow.config.storage_url import check_storage_url

__all__ = [
    "BUNDLED_FAMILIES",
    "Algorithm",
    "Schedule",
    "SearchConfig",
    "SearchLimits",
    "SpaceConfig",
    "default_min_epochs",
    "family_name",
]

Algorithm = Literal["random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic"]
Schedule = Literal["constant", "cosine", "warmup_cosine"]

BUNDLED_FAMILIES = ("resnet", "backbone")
"""The families of networks that come along."""

_FAMILY_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
_TEXT = {"type": "string"}
_ONE_SCHEDULE = {"type": "string", "enum": list(get_args(Schedule))}


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _class_weights(value: object) -> object:
    weights = value.values() if isinstance(value, Mapping) else []
    numbers = all(isinstance(each, int | float) and 0 < each < math.inf for each in weights)
    if value is None or value == "balanced" or (isinstance(value, Mapping) and value and numbers):
        return value
    raise ValueError("must be `balanced`, or a number above 0 for each class that is named (`{cat: 2, dog: 0.5}`)")


def family_name(family: str) -> str:
    """What a family is called: `small_cnn` where the config has `networks/small_cnn.py`."""
    return Path(family).name.removesuffix(".py")


def _family(value: str) -> str:
    if value in BUNDLED_FAMILIES:
        return value
    if not value.endswith(".py"):
        raise ValueError(f"must be {' or '.join(f'`{name}`' for name in BUNDLED_FAMILIES)}, or a Python file's path")
    path = expanded(value)
    name = family_name(path)
    if not _FAMILY_NAME.fullmatch(name) or name in BUNDLED_FAMILIES:
        raise ValueError(
            "must be a file whose name is one of letters, digits and `_`, and not that of a family that comes along"
        )
    return path


def _families_of_other_names(families: list[str]) -> list[str]:
    names = [family_name(each) for each in families]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"must be families of different names: {twice[0]} is there twice")
    return families


def _written(space: Mapping[str, Any]) -> dict[str, Any]:
    written = {}
    for name, values in space.items():
        try:
            written[name] = written_values(read_values(values))
        except ValueError as error:
            raise ValueError(f"{error}: `{name}` is not") from None
    return written


def default_min_epochs(max_epochs: int) -> int:
    """What `min_epochs: null` means: with the default reduction factor, 3, the longest bracket has three rungs."""
    return max(1, max_epochs // 9)


def _min_epochs(value: object, info: ValidationInfo) -> object:
    # `max_epochs` is missing where it was itself refused.
    return default_min_epochs(info.data.get("max_epochs", 1)) if value is None else value


class SpaceConfig(Block):
    """The hyperparameter space (the paper's Table 5, and weight decay). A range has both its ends."""

    learning_rate: FloatRange = Field(
        FloatRange(0.003, 0.008, log=True), description="Adam's learning rate, the schedule's highest, range."
    )
    batch_size: IntRange = Field(IntRange(24, 56), description="Training batch size in images, range.")
    l2: FloatRange = Field(
        FloatRange(1e-7, 1e-5, log=True), description="L2 regularisation factor of the kernels, range."
    )
    block: Annotated[list[Literal["v1", "v2", "next"]], AfterValidator(distinct)] = Field(
        ["v1", "v2"],
        min_length=1,
        description="Residual block: `v1`, `v2` (pre-activation), `next` (grouped convolutions).",
    )
    activation: Annotated[list[Literal["tanh", "relu", "elu"]], AfterValidator(distinct)] = Field(
        ["tanh", "relu"], min_length=1, description="Activation function, choices."
    )
    stem_filters: IntRange = Field(IntRange(6, 12), description="Filters of the first convolution, range.")
    stage_filters: IntRange = Field(
        IntRange(6, 10),
        description="Filters of the first stage, range; each later stage doubles them. More, say 12 to 24, where "
        "images are larger than digits or classes harder to tell apart.",
    )
    blocks_stage_1: IntRange = Field(IntRange(1, 2), description="Residual blocks in the first stage, range.")
    blocks_stage_2: IntRange = Field(IntRange(1, 1), description="Residual blocks in the second stage, range.")
    blocks_stage_3: IntRange = Field(IntRange(1, 1), description="Residual blocks in the third stage, range.")
    blocks_stage_4: IntRange = Field(IntRange(1, 1), description="Residual blocks in the fourth stage, range.")
    max_zoom: FloatRange = Field(FloatRange(0.05, 0.11), description="Augmentation: largest relative zoom, range.")
    max_translation: FloatRange = Field(
        FloatRange(0.05, 0.1), description="Augmentation: largest shift as a share of the image's side, range."
    )
    max_shear: FloatRange = Field(FloatRange(0.02, 0.14), description="Augmentation: largest shear in radians, range.")
    max_channel_shift: FloatRange = Field(
        FloatRange(0.0, 0.04),
        description="Augmentation: largest shift of a channel as a share of the full scale, range.",
    )
    max_rotation_degrees: IntRange = Field(
        IntRange(4, 10), description="Augmentation: largest rotation in degrees, range."
    )
    weight_decay: FloatRange = Field(
        FloatRange(0.0, 0.0),
        description="Adam's decoupled weight decay of the kernels, as a factor of the learning rate, range.",
    )
    horizontal_flips: FloatRange = Field(
        FloatRange(0.0, 0.0),
        description="Augmentation: share of the images that are mirrored left to right, range; `[0.5, 0.5]` where "
        "left and right make no difference.",
    )
    vertical_flips: FloatRange = Field(
        FloatRange(0.0, 0.0), description="Augmentation: share of the images that are turned upside down, range."
    )
    cutout: FloatRange = Field(
        FloatRange(0.0, 0.0),
        description="Augmentation: side of a square that is blanked at a random place of each image, as a share of the "
        "image's shorter side, range.",
    )
    mixup: FloatRange = Field(
        FloatRange(0.0, 0.0),
        description="Augmentation: each image is mixed with another one of its batch, labels too, by a share from "
        "Beta(mixup, mixup), range; 0.1 to 0.4 is usual, 0 mixes nothing.",
    )

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("batch_size", "stem_filters", "stage_filters", *(f"blocks_stage_{i}" for i in range(1, 5))):
            if getattr(self, name).low < 1:
                raise ValueError(f"`{name}` must start at 1 or more")
        if self.learning_rate.low <= 0:
            raise ValueError("`learning_rate` must start above 0")
        for name in (
            "l2",
            "weight_decay",
            "max_zoom",
            "max_translation",
            "max_shear",
            "max_channel_shift",
            "max_rotation_degrees",
            "horizontal_flips",
            "vertical_flips",
            "cutout",
            "mixup",
        ):
            if getattr(self, name).low < 0:
                raise ValueError(f"`{name}` must start at 0 or more")
        if self.max_zoom.high >= 1:
            raise ValueError("`max_zoom` must end below 1")
        for name in ("horizontal_flips", "vertical_flips", "cutout"):
            if getattr(self, name).high > 1:
                raise ValueError(f"`{name}` must end at 1 or less")
        return self


class SearchLimits(Block):
    """The largest networks that the search may train, by what is known of them before."""

    multiply_adds: float | None = Field(
        None,
        gt=0,
        description="Multiplications, each with an addition, of one image's prediction: `2e8`, for example; null is no "
        "limit.",
    )
    parameters: int | None = Field(None, ge=1, description="Weights of a network; null is no limit.")


class SearchConfig(Block):
    """The hyperparameter search."""

    algorithm: Algorithm = Field(
        "hyperband",
        description="`random` sampling; `hyperband`: random sampling with Optuna's Hyperband pruner; `gp`: Bayesian "
        "optimisation with a Gaussian process; `tpe`: tree-structured Parzen estimator; `bohb`: `tpe` with Hyperband; "
        "`smac`: SMAC3's random forest; `genetic`: successive generations. All but `hyperband` and `bohb` train every "
        "trial for all epochs; all but `genetic` never wait for other trials.",
    )
    n_trials: int = Field(
        32,
        ge=1,
        description="Trials of the study. Raising it keeps the finished ones, except with `genetic`, whose generations "
        "grow: the search begins anew.",
    )
    trials_per_job: int = Field(
        8,
        ge=1,
        description="Consecutive trials that one job trains. 1 where a trial takes minutes; more where "
        "starting TensorFlow (5 to 10 s) would dominate.",
    )
    max_epochs: int = Field(36, ge=1, description="Epochs of a trial that is never stopped (Hyperband's max_resource).")
    min_epochs: Annotated[
        int,
        BeforeValidator(_min_epochs),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}),
    ] = Field(
        None,
        ge=1,
        validate_default=True,
        description="Epochs after which Hyperband may stop a trial for the first time (its min_resource); null is a "
        "ninth of `max_epochs`, rounded down, at least 1. Raise it where networks are still at chance by then, as with "
        "many classes.",
    )
    reduction_factor: int = Field(3, ge=2, description="Hyperband keeps the best 1/reduction_factor at each rung.")
    n_startup_trials: int = Field(
        10,
        ge=1,
        description="First trials that `gp`, `tpe`, `bohb` and `smac` draw at random, before their model counts.",
    )
    n_generations: int = Field(
        3, ge=1, description="Generations of equal size into which `genetic` divides the trials."
    )
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32",
        description="Keras's dtype policy of the networks. The mixed ones are faster on GPUs with tensor cores, and "
        "need `resources.search.gpus` above 0.",
    )
    average: Literal["power", "none"] = Field(
        "power",
        description="What a trial is validated, stopped, kept and served by: `power`, an average of its weights over "
        "about the last sixth of its updates; `none`, the last update's weights.",
    )
    batch_statistics: Literal["recomputed", "moving"] = Field(
        "recomputed",
        description="What batch normalisation uses in what is validated, stopped, kept and served: `recomputed`, means "
        "and variances over 1,024 training images without augmentation; `moving`, the averages that training keeps.",
    )
    schedule: Annotated[
        list[Schedule],
        BeforeValidator(_as_list),
        AfterValidator(distinct),
        WithJsonSchema({"anyOf": [_ONE_SCHEDULE, {"type": "array", "items": _ONE_SCHEDULE, "minItems": 1}]}),
    ] = Field(
        ["cosine"],
        min_length=1,
        description="How the learning rate changes over the updates, choices: `constant`; `cosine`, down to 0 at "
        "`max_epochs`; `warmup_cosine`, which first rises over a twentieth of them.",
    )
    class_weights: Annotated[
        Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None, BeforeValidator(_class_weights)
    ] = Field(
        None,
        description="Factors of the images' losses in training: `balanced` gives each class the same weight in all, "
        "however many images it has; or a factor for each class that is named, the others' being 1.",
    )
    storage: Annotated[str, AfterValidator(check_storage_url)] | None = Field(
        None,
        description="URL of Optuna's storage: `postgresql://`, `mysql://` or `grpc://host:port`; null is a journal "
        "file in the study's folder. It changes no result. A password is better left to the database's own files.",
    )
    metric: Metric = Field(
        "cross_entropy",
        description="Validation metric to minimise, and to rank the library by: `cross_entropy`, which tells networks "
        "apart on few images too; `error` (1 - accuracy); `macro_f1_error` (1 - macro F1).",
    )
    limits: SearchLimits = Field(
        default_factory=SearchLimits,
        description="The largest networks that may be trained. Proposals beyond are drawn again by the algorithm, "
        "before anything is trained, so that no trial is lost to them.",
    )
    family: Annotated[
        list[Annotated[str, AfterValidator(_family)]],
        BeforeValidator(_as_list),
        AfterValidator(_families_of_other_names),
        WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
    ] = Field(
        ["resnet"],
        min_length=1,
        description="The networks: `resnet`, the paper's residual networks; `backbone`, those of keras.applications, "
        "from random weights or fine-tuned; or the path of a Python file with networks of your own, relative to the "
        "folder where snakemake runs (docs/own-networks.md). Of several, each trial draws one.",
    )
    family_space: dict[str, Any] = Field(
        default_factory=dict,
        description="Ranges and choices of the hyperparameters of a family other than `resnet`, in place of those that "
        "its file gives: `{filters: [8, 16]}`, and where there are several families `{small_cnn: {filters: [8, 16]}}`. "
        "Those that are not named stay.",
    )
    space: SpaceConfig = Field(
        default_factory=SpaceConfig,
        description="The hyperparameter space. `l2`, `block` to `blocks_stage_4` are of the family `resnet` and count "
        "for no other.",
    )

    @field_validator("family_space")
    @classmethod
    def _ranges(cls, space: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        families = [family_name(each) for each in info.data.get("family", [])]
        if len(families) < 2:
            return _written(space)
        others = [name for name in families if name != "resnet"]
        if not space.keys() <= {*others} or not all(isinstance(each, Mapping) for each in space.values()):
            raise ValueError(
                f"must have blocks of the families, `{others[0]}: {{…}}` for example; those of `resnet` stand "
                "in `space`"
            )
        return {name: _written(each) for name, each in space.items()}

    @property
    def own_families(self) -> dict[str, str]:
        """By their names, what `family` has of families other than `resnet`."""
        return {family_name(each): each for each in self.family if each != "resnet"}

    def own_space(self, name: str) -> dict[str, Any]:
        """The part of `family_space` that is of one family."""
        return self.family_space if len(self.family) == 1 else dict(self.family_space.get(name, {}))

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.n_trials < self.trials_per_job:
            raise ValueError("`n_trials` must be at least `trials_per_job`")
        if self.min_epochs > self.max_epochs:
            raise ValueError("`min_epochs` must be at most `max_epochs`: a trial has no more")
        if self.family == ["resnet"] and self.family_space:
            raise ValueError("`family_space` is of another family than `resnet`, whose ranges stand in `space`")
        if self.algorithm == "genetic" and self.n_trials < self.n_generations:
            raise ValueError("`n_trials` must be at least `n_generations`: a generation has at least one trial")
        return self
