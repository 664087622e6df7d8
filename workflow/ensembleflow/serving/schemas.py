"""The bodies of the server's requests and answers, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ensembleflow.serving.manifest import Manifest
from ensembleflow.serving.signature import (
    CONFIDENCE,
    DISAGREEMENT,
    INPUT,
    MEMBER_PROBABILITIES,
    OUTPUT_DATATYPES,
    OUTPUTS,
    PROBABILITIES,
    STAGE,
    InputName,
    OutputName,
    Signature,
)

__all__ = [
    "Classification",
    "Fault",
    "InferBody",
    "InferResponse",
    "Live",
    "MemberVote",
    "ModelMetadata",
    "ModelReady",
    "Ready",
    "ServerMetadata",
    "Worker",
    "describe_model",
]

_Scalar = str | int | float | bool


class _Body(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Fault(_Body):
    """Why there is no answer."""

    error: str = Field(description="what is wrong, what was found, what is expected")


class Live(_Body):
    """The server runs."""

    live: Literal[True] = True


class Ready(_Body):
    """Every member answers."""

    ready: Literal[True] = True


class ModelReady(_Body):
    """The model answers."""

    name: str
    ready: Literal[True] = True


class ServerMetadata(_Body):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Body):
    """A tensor; a length of -1 is variable."""

    name: str
    datatype: str
    shape: list[int]


class Worker(_Body):
    """A member's process."""

    model: str
    device: str
    engine: str
    batch_size: int
    state: str
    restarts: int
    peak_memory_mb: float


class Cascade(_Body):
    """Where images stop early."""

    members: list[str] = Field(description="in the order in which they answer")
    thresholds: list[float | None] = Field(
        description="an image stops after a member once the largest mean probability so far is so large; null: never"
    )
    max_changed: float = Field(description="the largest share of images of another class than all members give")
    confidence: float = Field(description="how sure that is")
    shares: list[float] = Field(description="the share of the calibration images that each member saw")


class Ensemble(_Body):
    """What is known of the ensemble besides its tensors."""

    study: str
    budget: str
    class_names: list[str]
    image_shape: list[int] = Field(description="height, width, channels, or of other samples their shape")
    members: list[str]
    allocation: list[Worker]
    valid: dict[str, float] = Field(description="metrics on the validation images")
    test: dict[str, float] = Field(description="metrics on the test images")
    dataset_checksum: str
    cascade: Cascade | None = Field(description="where images may stop early; null where all members see each")
    max_images: int = Field(description="the most images of one request")


class ModelMetadata(_Body):
    """The model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    ensemble: Ensemble


class RequestParameters(_Body):
    """What a request may choose."""

    allow_partial: bool = Field(default=False, description="accept an answer of the members that are alive")
    binary_data_output: bool = Field(default=False, description="return outputs as bytes behind the JSON")
    timeout: int = Field(default=0, ge=0, description="microseconds that the client waits; 0 is the server's limit")


class InputParameters(_Body):
    """How an input is sent."""

    binary_data_size: int = Field(ge=0, description="bytes of the tensor behind the JSON, instead of `data`")


class InputTensor(_Body):
    """The images."""

    name: InputName
    datatype: Literal["UINT8", "INT32", "INT64", "FP32"]
    shape: list[int] = Field(min_length=2, description="images, height, width, channels; or as the metadata say")
    data: list[Any] | None = Field(
        default=None, description="whole numbers from 0 to 255, or any where the metadata say FP32; flat or nested"
    )
    parameters: InputParameters | None = None


class OutputParameters(_Body):
    """How an output is returned."""

    binary_data: bool = Field(default=False, description="as bytes behind the JSON")


class OutputRequest(_Body):
    """An output to return."""

    name: OutputName
    parameters: OutputParameters | None = None


class InferBody(_Body):
    """An inference request; with `Inference-Header-Content-Length`, the tensor's bytes follow it."""

    id: str | None = Field(default=None, description="repeated in the answer")
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputRequest] | None = Field(default=None, description="by default the probabilities")


class OutputTensor(_Body):
    """An output; `data` are in row-major order."""

    name: str
    datatype: Literal["FP32", "INT32"]
    shape: list[int]
    data: list[float | None] | None = Field(
        default=None, description="null is the probability of a member that a cascade did not ask"
    )
    parameters: dict[str, int] | None = None


class InferResponse(_Body):
    """The answer; `members_used` among its parameters names the members that it is the mean of."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, _Scalar]
    outputs: list[OutputTensor]


class ClassProbability(_Body):
    """A class and its probability."""

    class_name: str = Field(alias="class")
    probability: float

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)


class MemberVote(ClassProbability):
    """A member's most probable class."""

    member: str
    agrees: bool = Field(description="whether it is the ensemble's class as well")


class Classification(_Body):
    """What an image shows."""

    classes: list[ClassProbability] = Field(description="the ensemble's most probable classes, the first one first")
    votes: list[MemberVote] = Field(description="each member's most probable class")
    disagreement: float = Field(description="share of the members that saw it whose class is not the ensemble's")
    confidence: float = Field(description="the probability of the ensemble's most probable class")
    stage: int = Field(description="by how many members the image was answered")
    members_used: list[str]
    width: int = Field(description="the image's width in pixels, before it was scaled")
    height: int


def describe_model(manifest: Manifest, signature: Signature, workers: list[Worker]) -> ModelMetadata:
    """The model's metadata."""
    n_classes = len(manifest.class_names)
    shapes = {PROBABILITIES: [-1, n_classes], MEMBER_PROBABILITIES: [-1, -1, n_classes], DISAGREEMENT: [-1]}
    shapes |= {CONFIDENCE: [-1], STAGE: [-1]}
    return ModelMetadata(
        name=signature.model_name,
        versions=[signature.model_version],
        platform="ensembleflow",
        inputs=[TensorMetadata(name=INPUT, datatype=signature.datatype, shape=[-1, *signature.image_shape])],
        outputs=[TensorMetadata(name=name, datatype=OUTPUT_DATATYPES[name], shape=shapes[name]) for name in OUTPUTS],
        ensemble=Ensemble(
            study=manifest.study,
            budget=manifest.budget,
            class_names=manifest.class_names,
            image_shape=list(manifest.image_shape),
            members=manifest.members,
            allocation=workers,
            valid=manifest.valid,
            test=manifest.test,
            dataset_checksum=manifest.dataset_checksum,
            cascade=None if manifest.cascade is None else Cascade.model_validate(manifest.cascade.model_dump()),
            max_images=signature.max_images,
        ),
    )
