"""The bodies of Triton's extensions of the protocol: model configuration, statistics and repository.

Source: Triton Inference Server, "Model Configuration Extension", "Statistics Extension", "Model Repository Extension".
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ensembleflow.serving.metrics import Served, Timed
from ensembleflow.serving.signature import (
    CONFIDENCE,
    DISAGREEMENT,
    INPUT,
    MEMBER_PROBABILITIES,
    PROBABILITIES,
    STAGE,
    Signature,
)

__all__ = [
    "IndexBody",
    "IndexEntry",
    "ModelConfig",
    "ModelList",
    "Statistics",
    "describe_config",
    "describe_statistics",
]

_NANOSECONDS = 1e9


class ModelList(BaseModel):
    """The models that are served."""

    models: list[str]


class Reshape(BaseModel):
    """A tensor's own shape, where it is another than its `dims`."""

    shape: list[int]


class ConfiguredTensor(BaseModel):
    """A tensor; `dims` are without the images' axis."""

    name: str
    data_type: Literal["TYPE_UINT8", "TYPE_FP32", "TYPE_INT32"]
    dims: list[int]
    format: Literal["FORMAT_NHWC", "FORMAT_NONE"] = "FORMAT_NONE"
    reshape: Reshape | None = None


class ModelConfig(BaseModel):
    """The model's configuration, as Triton writes it."""

    name: str
    platform: str = "ensembleflow"
    backend: str = "ensembleflow"
    max_batch_size: int = Field(description="the most images of one request")
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]


class Duration(BaseModel):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(BaseModel):
    """Times since the start; those that are 0 are not counted apart, and there is no cache."""

    success: Duration = Field(description="requests answered, from their heads to their answers")
    fail: Duration = Field(description="requests refused")
    compute_infer: Duration = Field(description="batches, from their starts to their last members' answers")
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStatistics(BaseModel):
    """What a model has answered."""

    name: str
    version: str
    last_inference: int = Field(description="when it last answered, milliseconds since 1970; 0 if it never has")
    inference_count: int = Field(description="images answered")
    execution_count: int = Field(description="batches that they were answered in")
    inference_stats: InferenceStatistics
    batch_stats: list[dict[str, int]] = []


class Statistics(BaseModel):
    """What the models have answered."""

    model_stats: list[ModelStatistics]


class IndexBody(BaseModel):
    """What to list."""

    ready: bool = Field(default=False, description="only models that answer")


class IndexEntry(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


def describe_config(signature: Signature, n_classes: int) -> ModelConfig:
    """The model's configuration."""
    return ModelConfig(
        name=signature.model_name,
        max_batch_size=signature.max_images,
        input=[
            ConfiguredTensor(
                name=INPUT,
                data_type=f"TYPE_{signature.datatype}",
                dims=list(signature.image_shape),
                format=signature.layout,
            )
        ],
        output=[
            ConfiguredTensor(name=PROBABILITIES, data_type="TYPE_FP32", dims=[n_classes]),
            ConfiguredTensor(name=MEMBER_PROBABILITIES, data_type="TYPE_FP32", dims=[-1, n_classes]),
            # No axis is left, which Triton writes as an axis that is not there.
            ConfiguredTensor(name=DISAGREEMENT, data_type="TYPE_FP32", dims=[1], reshape=Reshape(shape=[])),
            ConfiguredTensor(name=CONFIDENCE, data_type="TYPE_FP32", dims=[1], reshape=Reshape(shape=[])),
            ConfiguredTensor(name=STAGE, data_type="TYPE_INT32", dims=[1], reshape=Reshape(shape=[])),
        ],
    )


def describe_statistics(signature: Signature, served: Served) -> Statistics:
    """What a model has answered."""
    return Statistics(
        model_stats=[
            ModelStatistics(
                name=signature.model_name,
                version=signature.model_version,
                last_inference=round(served.last_answer * 1000),
                inference_count=served.n_images,
                execution_count=served.batches.count,
                inference_stats=InferenceStatistics(
                    success=_duration(served.answered),
                    fail=_duration(served.refused),
                    compute_infer=_duration(served.batches),
                ),
            )
        ]
    )


def _duration(timed: Timed) -> Duration:
    return Duration(count=timed.count, ns=round(timed.seconds * _NANOSECONDS))
