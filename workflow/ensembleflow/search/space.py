"""Drawing hyperparameters from the config's space through Optuna."""

from __future__ import annotations

import optuna

from ensembleflow.config import SpaceConfig
from ensembleflow.models import Hyperparameters

__all__ = ["suggest_hyperparameters"]

_REAL = ("learning_rate", "l2", "max_zoom", "max_translation", "max_shear", "max_channel_shift")
_CHOICE = ("block", "activation")


def suggest_hyperparameters(trial: optuna.Trial, space: SpaceConfig) -> Hyperparameters:
    """Ask the trial's sampler for every hyperparameter, always in Table 5's order.

    A resumed trial gets back the values that it was first given.
    """
    values: dict[str, object] = {}
    for name in Hyperparameters.names():
        bounds = getattr(space, name)
        if name in _CHOICE:
            values[name] = trial.suggest_categorical(name, list(bounds))
        elif name in _REAL:
            values[name] = trial.suggest_float(name, *bounds)
        else:
            values[name] = trial.suggest_int(name, *bounds)
    return Hyperparameters.from_dict(values)
