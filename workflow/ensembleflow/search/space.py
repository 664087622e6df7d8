"""The config's hyperparameter space in Optuna's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ensembleflow.config import IntRange, Range, SearchConfig, Values, family_name, read_values
from ensembleflow.models.hyperparameters import FAMILY, FamilyHyperparameters, Hyperparameters, TrainingHyperparameters

__all__ = ["distributions", "hyperparameters_of", "lowest_value", "suggest_hyperparameters", "suggest_values"]


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """Every hyperparameter's range or choices: Table 5's in its order, then those that it has not.

    Hyperparameters of other families stand where those of the residual networks would. Where the study has several
    families, all have their names before them (`resnet.block`): each trial has a value of each, and uses its family's.
    """
    training = {name: _training_values(search, name) for name in TrainingHyperparameters.names()}
    networks: dict[str, Values] = {}
    if len(search.family) > 1:
        networks[FAMILY] = [family_name(each) for each in search.family]
    for name in map(family_name, search.family):
        networks |= {f"{_prefix(search, name)}{key}": values for key, values in _network_values(search, name).items()}
    first, rest = list(training)[:2], list(training)[2:]
    ordered = {name: {**training, **networks}[name] for name in (*first, *networks, *rest)}
    return {name: _distribution(values) for name, values in ordered.items()}


def suggest_values(trial: optuna.Trial, search: SearchConfig) -> dict[str, Any]:
    """Ask the trial's sampler for every hyperparameter, always in the order of `distributions`.

    A resumed trial gets back the values that it was first given.
    """
    return {name: _suggest(trial, name, each) for name, each in distributions(search).items()}


def hyperparameters_of(values: Mapping[str, Any], search: SearchConfig) -> TrainingHyperparameters:
    """A trial's values as what it trains with: `Hyperparameters` of the family `resnet`, or `FamilyHyperparameters`."""
    family = values[FAMILY] if len(search.family) > 1 else family_name(search.family[0])
    training = {name: values[name] for name in TrainingHyperparameters.names()}
    keys = _network_values(search, family)
    network = {name: values[f"{_prefix(search, family)}{name}"] for name in keys}
    if family == "resnet":
        return Hyperparameters(**training, **network)
    return FamilyHyperparameters(**training, family=family, network=network)


def suggest_hyperparameters(trial: optuna.Trial, search: SearchConfig) -> TrainingHyperparameters:
    """`suggest_values`, as what the trial trains with."""
    return hyperparameters_of(suggest_values(trial, search), search)


def lowest_value(distribution: BaseDistribution) -> Any:
    """The lowest of a range, the first of choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]


def _prefix(search: SearchConfig, family: str) -> str:
    return f"{family}." if len(search.family) > 1 else ""


def _network_values(search: SearchConfig, family: str) -> dict[str, Values]:
    """The ranges and choices of one family's own hyperparameters."""
    if family != "resnet":
        return {name: read_values(values) for name, values in search.own_space(family).items()}
    own = [name for name in Hyperparameters.names() if name not in TrainingHyperparameters.names()]
    return {name: getattr(search.space, name) for name in own}


def _training_values(search: SearchConfig, name: str) -> Values:
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
