"""The config's hyperparameter space in Optuna's terms."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ensembleflow.config import SpaceConfig
from ensembleflow.models import Hyperparameters

__all__ = ["distributions", "suggest_hyperparameters"]

_REAL = ("learning_rate", "l2", "max_zoom", "max_translation", "max_shear", "max_channel_shift")
_CHOICE = ("block", "activation")


def distributions(space: SpaceConfig) -> dict[str, BaseDistribution]:
    """Every hyperparameter's range or choices, in Table 5's order; all ranges are linear."""
    return {name: _distribution(name, getattr(space, name)) for name in Hyperparameters.names()}


def suggest_hyperparameters(trial: optuna.Trial, space: SpaceConfig) -> Hyperparameters:
    """Ask the trial's sampler for every hyperparameter, always in Table 5's order.

    A resumed trial gets back the values that it was first given.
    """
    return Hyperparameters.from_dict({name: _suggest(trial, name, each) for name, each in distributions(space).items()})


def _distribution(name: str, bounds: Any) -> BaseDistribution:
    if name in _CHOICE:
        return CategoricalDistribution(bounds)
    low, high = bounds
    return FloatDistribution(low, high) if name in _REAL else IntDistribution(low, high)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> object:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high)
    assert isinstance(distribution, IntDistribution)
    return trial.suggest_int(name, distribution.low, distribution.high)
