"""How the learning rate changes over the updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensembleflow.config import Schedule

if TYPE_CHECKING:
    import keras

__all__ = ["learning_rate_schedule"]

_WARM_UP_SHARE = 0.05


def learning_rate_schedule(
    schedule: Schedule, learning_rate: float, n_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A schedule as Keras's optimizers take it.

    Args:
        schedule: `constant`; `cosine`, which falls from `learning_rate` to 0 along half a cosine (Loshchilov and Hutter
            2017); `warmup_cosine`, which first rises from 0 over a twentieth of the updates.
        learning_rate: the highest.
        n_steps: updates of a training that is never stopped.
    """
    import keras

    if schedule == "constant":
        return learning_rate
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, n_steps)
    warm_up_steps = max(1, round(_WARM_UP_SHARE * n_steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, n_steps - warm_up_steps), warmup_target=learning_rate, warmup_steps=warm_up_steps
    )
