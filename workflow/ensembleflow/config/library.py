"""The config's block `library`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from ensembleflow.config.base import Block

__all__ = ["FASTEST", "BaselineConfig", "CostConfig", "LibraryConfig", "PredictionsConfig", "n_kept"]

FASTEST: Final = "fastest"
"""The fastest of the installed engines that compute in float32."""


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
    engine: Literal["fastest", "tensorflow", "onnxruntime", "openvino"] = Field(
        FASTEST,
        description="What computes the models where costs are measured, and, unless `allocation.engines` says "
        "otherwise, where they are served, so that a budget speaks of what is served: `fastest` tries the installed "
        "engines on the kept models; `tensorflow` is the paper's.",
    )
    cost: CostConfig = Field(default_factory=CostConfig, description="The cost measurement.")
    predictions: PredictionsConfig = Field(
        default_factory=PredictionsConfig, description="The cache of the kept models' predictions."
    )
    baseline: BaselineConfig = Field(
        default_factory=BaselineConfig, description="The simple classifier that every ensemble is held against."
    )


def n_kept(n_models: int, keep_fraction: float) -> int:
    """How many of `n_models` are kept: their share, rounded to the nearest whole number."""
    return int(n_models * keep_fraction + 0.5)
