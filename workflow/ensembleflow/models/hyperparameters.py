"""One point of the hyperparameter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ensembleflow.config import Schedule

__all__ = ["Hyperparameters"]


@dataclass(frozen=True)
class Hyperparameters:
    """What one trial trains with: the paper's Table 5, one field a row, and two that it has not.

    Attributes:
        learning_rate: Adam's learning rate, the schedule's highest.
        batch_size: training batch size in images.
        l2: L2 regularisation factor of the kernels.
        block: residual block: `v1`, `v2` (pre-activation) or `next` (grouped convolutions).
        activation: `tanh`, `relu` or `elu`.
        stem_filters: filters of the first convolution.
        stage_filters: filters of the first stage; each later stage doubles them.
        blocks_stage_1: residual blocks in the first stage; likewise for the other three.
        max_zoom: largest relative zoom.
        max_translation: largest shift as a share of the image's side.
        max_shear: largest shear in radians.
        max_channel_shift: largest shift of a channel as a share of the full scale.
        max_rotation_degrees: largest rotation in degrees.
        schedule: how the learning rate changes over the updates.
        weight_decay: Adam's decoupled weight decay of the kernels, as a factor of the learning rate.
    """

    learning_rate: float
    batch_size: int
    l2: float
    block: Literal["v1", "v2", "next"]
    activation: Literal["tanh", "relu", "elu"]
    stem_filters: int
    stage_filters: int
    blocks_stage_1: int
    blocks_stage_2: int
    blocks_stage_3: int
    blocks_stage_4: int
    max_zoom: float
    max_translation: float
    max_shear: float
    max_channel_shift: float
    max_rotation_degrees: int
    schedule: Schedule = "constant"
    weight_decay: float = 0.0

    @classmethod
    def names(cls) -> list[str]:
        """The hyperparameters' names, in Table 5's order."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Make from a mapping that may hold other keys as well."""
        return cls(**{name: values[name] for name in cls.names()})

    def to_dict(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)

    @property
    def stage_blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks in each of the four stages."""
        return (self.blocks_stage_1, self.blocks_stage_2, self.blocks_stage_3, self.blocks_stage_4)
