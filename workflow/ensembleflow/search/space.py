"""The config's hyperparameter space in Optuna's terms."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ensembleflow.config import IntRange, Range, SearchConfig, Values, read_values
from ensembleflow.models.hyperparameters import FamilyHyperparameters, Hyperparameters, TrainingHyperparameters

__all__ = ["distributions", "suggest_hyperparameters"]


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """Every hyperparameter's range or choices: Table 5's in its order, then those that it has not.

    Of a family of the user's own, its hyperparameters stand where the residual networks' would.
    """
    return {name: _distribution(_values(search, name)) for name in _names(search)}


def suggest_hyperparameters(trial: optuna.Trial, search: SearchConfig) -> TrainingHyperparameters:
    """Ask the trial's sampler for every hyperparameter, always in the order of `distributions`.

    A resumed trial gets back the values that it was first given.

    Returns:
        `Hyperparameters` of the family `resnet`, or `FamilyHyperparameters`.
    """
    values = {name: _suggest(trial, name, each) for name, each in distributions(search).items()}
    return (Hyperparameters if search.family == "resnet" else FamilyHyperparameters).from_dict(values)


def _names(search: SearchConfig) -> list[str]:
    if search.family == "resnet":
        return Hyperparameters.names()
    training = TrainingHyperparameters.names()
    return [*training[:2], *search.family_space, *training[2:]]


def _values(search: SearchConfig, name: str) -> Values:
    if name in search.family_space:
        return read_values(search.family_space[name])
    values: Values = search.schedule if name == "schedule" else getattr(search.space, name)
    return values


def _distribution(values: Values) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if isinstance(values, IntRange):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, IntDistribution)
    return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
