"""What `bundle.json` holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ensembleflow.config import Engine

__all__ = ["SCHEMA_VERSION", "BundledCascade", "BundledDevice", "BundledPlacement", "Manifest", "Proof"]

SCHEMA_VERSION = 2

_ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
_Length = Annotated[int, Field(ge=1, le=2**24)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestPart(BaseModel):
    """A part of a manifest: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BundledPlacement(ManifestPart):
    """Where one replica of a member runs."""

    model: _ModelId
    device: str
    batch_size: int = Field(ge=1, le=65536)
    engine: Engine = "tensorflow"


class BundledDevice(ManifestPart):
    """A device as the allocation was measured on; `gpu` is a GPU's place among the machine's."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    cores: int = Field(ge=1, le=4096)
    memory_mb: int = Field(ge=1)
    gpu: int | None = Field(None, ge=0, le=1023)


class Proof(ManifestPart):
    """How near the running server's answers came to the cached predictions, before the bundle was called servable.

    Attributes:
        n_images: validation images that it was asked for, over HTTP.
        largest_difference: of a probability.
        tolerance: the largest difference allowed.
        n_other_classes: images whose most probable class was another than the cached one; None where the cache holds
            the true classes only.
        engines: what computed the members.
    """

    n_images: int = Field(ge=1)
    largest_difference: float = Field(ge=0)
    tolerance: float = Field(gt=0)
    n_other_classes: int | None = Field(None, ge=0)
    engines: list[Engine] = Field([])


class BundledCascade(ManifestPart):
    """When an image needs no further member, and what is promised of that.

    Attributes:
        members: the ensemble's model ids, in the order in which they answer.
        thresholds: of each of them but the last; null stops no image.
        max_changed: at most this share of images gets another class than all members together give them.
        confidence: how sure that is.
        shares: of the calibration images, the share that each member saw; `share_intervals` are its bounds.
        rounding: by how much `check/full_probabilities.npy` is rounded.
    """

    members: list[_ModelId] = Field(min_length=2, max_length=1000)
    thresholds: list[float | None]
    max_changed: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    shares: list[float]
    share_intervals: list[tuple[float, float]]
    rounding: float = Field(ge=0)

    @model_validator(mode="after")
    def _a_value_per_stage(self) -> Self:
        n_stages = len(self.members)
        if (len(self.thresholds), len(self.shares), len(self.share_intervals)) != (n_stages - 1, n_stages, n_stages):
            raise ValueError("thresholds and shares do not belong to the members")
        return self


class Manifest(ManifestPart):
    """What `bundle.json` holds.

    Attributes:
        members: the ensemble's model ids.
        allocation: where their replicas run.
        image_shape: (height, width, channels), or of other samples their shape.
        image_dtype: the images' type.
        valid: the ensemble's metrics on the validation images; `test` likewise.
        cost_seconds: the members' summed cost.
        images_per_second: measured with this allocation on the machine that made the bundle.
        cascade: where images may stop early; null where each is shown to all members.
        servable: the proof that a server gives the right answers; without it none may be started.
        files: SHA-256 of every other file, by its path within the bundle.
    """

    schema_version: Literal[2] = 2
    study: str
    budget: str
    members: list[_ModelId] = Field(min_length=1, max_length=1000)
    allocation: list[BundledPlacement] = Field(min_length=1, max_length=10_000)
    devices: list[BundledDevice] = Field(min_length=1, max_length=1000)
    class_names: list[str] = Field(min_length=1, max_length=1_000_000)
    image_shape: tuple[_Length, ...] = Field(min_length=1, max_length=31)
    image_dtype: Literal["uint8", "float32"] = "uint8"
    combiner: Literal["average"] = "average"
    valid: dict[str, float]
    test: dict[str, float]
    cost_seconds: float
    images_per_second: float
    dataset_checksum: str
    cascade: BundledCascade | None = None
    servable: Proof | None = None
    files: dict[str, _Sha256]
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _pixels_have_three_axes(self) -> Self:
        if self.image_dtype == "uint8" and len(self.image_shape) != 3:
            raise ValueError("uint8 images have height, width and channels")
        return self

    @model_validator(mode="after")
    def _a_cascade_is_of_the_members(self) -> Self:
        if self.cascade is not None and sorted(self.cascade.members) != sorted(self.members):
            raise ValueError("the cascade is of other members")
        return self
