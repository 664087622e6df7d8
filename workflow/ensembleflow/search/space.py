"""The config's hyperparameter space in Optuna's terms."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ensembleflow.config import IntRange, Range, SearchConfig
from ensembleflow.models import Hyperparameters

__all__ = ["distributions", "suggest_hyperparameters"]


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """Every hyperparameter's range or choices: Table 5's in its order, then those that it has not."""
    return {name: _distribution(_values(search, name)) for name in Hyperparameters.names()}


def suggest_hyperparameters(trial: optuna.Trial, search: SearchConfig) -> Hyperparameters:
    """Ask the trial's sampler for every hyperparameter, always in the order of `distributions`.

    A resumed trial gets back the values that it was first given.
    """
    return Hyperparameters.from_dict(
        {name: _suggest(trial, name, each) for name, each in distributions(search).items()}
    )


def _values(search: SearchConfig, name: str) -> Any:
    return search.schedule if name == "schedule" else getattr(search.space, name)


def _distribution(values: Range | list[Any]) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if isinstance(values, IntRange):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> object:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, IntDistribution)
    return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
