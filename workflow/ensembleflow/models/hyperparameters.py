"""One point of the hyperparameter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from ensembleflow.config import Schedule

__all__ = ["FAMILY", "FamilyHyperparameters", "Hyperparameters", "TrainingHyperparameters"]

FAMILY = "family"
"""The hyperparameter that says which family a trial's network is of, where the study has several."""


@dataclass(frozen=True, kw_only=True)
class TrainingHyperparameters:
    """What one trial trains with, whatever its network.

    Attributes:
        learning_rate: Adam's learning rate, the schedule's highest.
        batch_size: training batch size in images.
        max_zoom: largest relative zoom.
        max_translation: largest shift as a share of the image's side.
        max_shear: largest shear in radians.
        max_channel_shift: largest shift of a channel as a share of the full scale.
        max_rotation_degrees: largest rotation in degrees.
        schedule: how the learning rate changes over the updates.
        weight_decay: Adam's decoupled weight decay of the kernels, as a factor of the learning rate.
        horizontal_flips: share of the images that are mirrored left to right.
        vertical_flips: share of the images that are turned upside down.
        cutout: side of the square that is blanked, as a share of the image's shorter side.
        mixup: both parameters of the Beta distribution of the shares in which two images are mixed; 0 mixes none.
    """

    learning_rate: float
    batch_size: int
    max_zoom: float
    max_translation: float
    max_shear: float
    max_channel_shift: float
    max_rotation_degrees: int
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    horizontal_flips: float = 0.0
    vertical_flips: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0

    @classmethod
    def names(cls) -> list[str]:
        """The hyperparameters' names."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make from a mapping that may hold other keys as well."""
        return cls(**{name: values[name] for name in cls.names()})

    def to_dict(self) -> dict[str, Any]:
        """All values by name."""
        values = asdict(self)
        return {name: values[name] for name in self.names()}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(TrainingHyperparameters):
    """What a trial of the family `resnet` trains with: the paper's Table 5, one field a row, and two that it has not.

    Attributes:
        l2: L2 regularisation factor of the kernels.
        block: residual block: `v1`, `v2` (pre-activation) or `next` (grouped convolutions).
        activation: `tanh`, `relu` or `elu`.
        stem_filters: filters of the first convolution.
        stage_filters: filters of the first stage; each later stage doubles them.
        blocks_stage_1: residual blocks in the first stage; likewise for the other three.
    """

    l2: float
    block: Literal["v1", "v2", "next"]
    activation: Literal["tanh", "relu", "elu"]
    stem_filters: int
    stage_filters: int
    blocks_stage_1: int
    blocks_stage_2: int
    blocks_stage_3: int
    blocks_stage_4: int

    @classmethod
    def names(cls) -> list[str]:
        """The hyperparameters' names, in Table 5's order."""
        training = TrainingHyperparameters.names()
        own = [name for name in super().names() if name not in training]
        return [*training[:2], *own, *training[2:]]

    @property
    def stage_blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks in each of the four stages."""
        return (self.blocks_stage_1, self.blocks_stage_2, self.blocks_stage_3, self.blocks_stage_4)


@dataclass(frozen=True, kw_only=True)
class FamilyHyperparameters(TrainingHyperparameters):
    """What a trial of a family other than `resnet` trains with.

    Attributes:
        family: the family's name.
        network: the values of the family's own hyperparameters, by name.
    """

    family: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def names(cls) -> list[str]:
        """The names of what every family has."""
        return TrainingHyperparameters.names()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make from a mapping with the family's own values too."""
        training = {name: values[name] for name in cls.names()}
        return cls(**training, network={name: value for name, value in values.items() if name not in training})

    def to_dict(self) -> dict[str, Any]:
        """All values by name, those of the network among them."""
        return {**super().to_dict(), **self.network}
