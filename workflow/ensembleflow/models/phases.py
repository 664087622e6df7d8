"""Phases of a training: which layers are trained in which epochs, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ensembleflow.models.layers import layers_by_names

if TYPE_CHECKING:
    import keras

__all__ = ["Phase", "freeze", "phase_of", "scaled_schedule"]


@dataclass(frozen=True)
class Phase:
    """Some epochs in which the same layers are trained.

    Attributes:
        trainable: names of the layers that are trained, or of networks whose layers are; all others keep their weights,
            and batch normalisation its statistics.
        learning_rate_factor: of the schedule's learning rate.
        epochs: how many; None is all that are left.
    """

    trainable: frozenset[str]
    learning_rate_factor: float = 1.0
    epochs: int | None = None


def phase_of(phases: Sequence[Phase], epoch: int) -> Phase:
    """The phase of an epoch, counted from 1; after the last phase's epochs it is still the last."""
    last = 0
    for phase in phases[:-1]:
        last += phase.epochs or 0
        if epoch <= last:
            return phase
    return phases[-1]


def freeze(model: keras.Model, trainable: Set[str]) -> None:
    """Leave those layers of a network trainable that are named, themselves or a network around them, and no others."""
    for layer, names in layers_by_names(model):
        layer.trainable = not names.isdisjoint(trainable)


def scaled_schedule(schedule: Any, factor: Callable[[], Any]) -> Any:
    """A learning rate, or a schedule of it, times a factor that may change."""
    import keras

    class Scaled(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return (schedule(step) if callable(schedule) else schedule) * factor()

        def get_config(self) -> dict[str, Any]:
            return {}

    return Scaled()
