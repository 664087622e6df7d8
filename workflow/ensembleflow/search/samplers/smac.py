"""SMAC3's models behind an Optuna sampler: its random forest for `smac`, its Gaussian process for `gp`."""

from __future__ import annotations

import logging
import math
import statistics
import warnings
from abc import abstractmethod
from collections.abc import KeysView, Sequence
from typing import Any

import numpy as np
import optuna
from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from ConfigSpace.hyperparameters import Hyperparameter
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from smac import BlackBoxFacade, HyperparameterOptimizationFacade, Scenario
from smac.acquisition.maximizer import LocalAndSortedRandomSearch
from smac.acquisition.maximizer.local_search import LocalSearch
from smac.facade.abstract_facade import AbstractFacade
from smac.model import AbstractModel
from smac.model.gaussian_process import GaussianProcess
from smac.model.random_forest.random_forest import RandomForest
from smac.runhistory import RunHistory
from smac.runhistory.enumerations import StatusType
from threadpoolctl import threadpool_limits

from ensembleflow.search.samplers.slot import slot_seed
from ensembleflow.search.samplers.whole_point import ModelSampler, known_values

__all__ = ["GaussianProcessSampler", "RandomForestSampler", "observations"]

logging.getLogger("smac").setLevel(logging.ERROR)


def observations(trials: Sequence[FrozenTrial], names: KeysView[str]) -> list[tuple[dict[str, Any], float]]:
    """Each point that was drawn, by its values of `names`, and the value to minimise that the model is told.

    A completed trial tells its value, a pruned one its last report. A failed one is told the worst of these, so that
    the model keeps away from where it failed; a running one their median (a constant liar, Ginsbourger et al. 2010),
    so that jobs side by side do not propose the same point. Of trials with equal values the first that ended counts.
    """
    drawn = [(trial, values) for trial in trials if names <= (values := known_values(trial)).keys()]
    told = {trial.number: value for trial, _ in drawn if (value := _value(trial)) is not None}
    if not told:
        return []
    worst, middle = max(told.values()), statistics.median(told.values())
    points: dict[tuple[Any, ...], float] = {}
    for trial, values in sorted(drawn, key=lambda pair: not pair[0].state.is_finished()):
        value = told.get(trial.number, worst if trial.state.is_finished() else middle)
        points.setdefault(tuple(values[name] for name in names), value)
    return [(dict(zip(names, point, strict=True)), value) for point, value in points.items()]


def _value(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE:
        value = trial.value
    elif trial.state == TrialState.PRUNED and trial.last_step is not None:
        value = trial.intermediate_values[trial.last_step]
    else:
        return None
    return value if value is not None and math.isfinite(value) else None


class _SmacSampler(ModelSampler):
    """Expected improvement by a model of SMAC3 (Lindauer et al. 2022), made anew from the storage for each trial.

    Of SMAC's parts the model, the encoding of values, the acquisition function and its maximiser are used, and not
    its optimiser, which keeps its own files and would start the trials itself.
    """

    _facade: type[AbstractFacade]

    @abstractmethod
    def _model(self, scenario: Scenario, n_observations: int) -> AbstractModel: ...

    def propose(self, study: optuna.Study, trial: FrozenTrial, others: Sequence[FrozenTrial]) -> dict[str, Any]:
        """The new point with the highest expected improvement; now and then, as SMAC does, a random one."""
        seed = slot_seed(self.seed, trial.number, "smac")
        space = ConfigurationSpace(seed=seed)
        space.add([_hyperparameter(name, each) for name, each in self.space.items()])
        # One thread: a cluster's node runs many jobs, and sums in another order would end in other values.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            configuration = self._best(space, seed, observations(others, self.space.keys()))
        if configuration is None:
            return {}
        return {name: _plain(configuration[name], each) for name, each in self.space.items()}

    def _best(
        self, space: ConfigurationSpace, seed: int, told: list[tuple[dict[str, Any], float]]
    ) -> Configuration | None:
        history = RunHistory()
        for values, cost in told:
            configuration = Configuration(space, values={name: values[name] for name in self.space})
            history.add(configuration, cost=cost, status=StatusType.SUCCESS)
        scenario = Scenario(space, deterministic=True, n_trials=2**31 - 1, seed=seed)
        encoder = self._facade.get_runhistory_encoder(scenario)
        encoder.runhistory = history
        points, costs = encoder.transform()
        model = self._model(scenario, len(points))
        model.train(points, costs)
        predicted = model.predict_marginalized(points)[0][:, 0]
        best = int(np.argmin(predicted))
        acquisition = self._facade.get_acquisition_function(scenario)
        acquisition.update(
            model=model, eta=predicted[best], incumbent_array=points[best], num_data=len(points), X=points
        )
        maximizer = LocalAndSortedRandomSearch(space, challengers=1000, seed=seed)
        maximizer._local_search = _OrderedLocalSearch(space, seed=seed)
        maximizer.acquisition_function = acquisition
        known = history.get_configs()
        random_design = self._facade.get_random_design(scenario)
        challengers = maximizer.maximize(known, random_design=random_design)
        seen = set(known)
        return next((each for each in challengers if each not in seen), None)


class RandomForestSampler(_SmacSampler):
    """SMAC3's default for hyperparameters: a random forest on logarithms of scaled values; one point of 5 is random."""

    _facade = HyperparameterOptimizationFacade

    def _model(self, scenario: Scenario, n_observations: int) -> AbstractModel:
        return RandomForest(
            scenario.configspace,
            log_y=True,
            n_trees=10,
            ratio_features=1.0,
            min_samples_split=2,
            min_samples_leaf=1,
            # The facade's 2 ** 20 makes scikit-learn reserve 130 MB a tree, and no forest has more leaves than points.
            max_leaf_nodes=max(2, n_observations),
            n_jobs=1,
            seed=scenario.seed,
        )


class GaussianProcessSampler(_SmacSampler):
    """SMAC3's Gaussian process, Matérn kernel of numbers times Hamming kernel of choices; one point of 12 is random."""

    _facade = BlackBoxFacade

    def _model(self, scenario: Scenario, n_observations: int) -> AbstractModel:
        return GaussianProcess(
            scenario.configspace,
            kernel=BlackBoxFacade.get_kernel(scenario),
            # SMAC's default is 10; a fit's cost grows with the cube of the observations.
            n_restarts=min(10, 500 // n_observations),
            normalize_y=True,
            seed=scenario.seed,
        )


class _OrderedLocalSearch(LocalSearch):
    """Starts in an order that is the same in every process; SMAC's own depends on Python's string hashes."""

    def _get_initial_points(self, *args: Any, **kwargs: Any) -> list[Configuration]:
        points = super()._get_initial_points(*args, **kwargs)
        return sorted(points, key=lambda each: each.get_array().tolist())


def _hyperparameter(name: str, distribution: BaseDistribution) -> Hyperparameter[Any, Any]:
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(name, list(distribution.choices))
    if isinstance(distribution, FloatDistribution):
        return Float(name, (distribution.low, distribution.high))
    assert isinstance(distribution, IntDistribution)
    return Integer(name, (distribution.low, distribution.high))


def _plain(value: Any, distribution: BaseDistribution) -> Any:
    """Python's own number or text, within its range, out of which ConfigSpace's rounding may lead."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if choice == value)
    if isinstance(distribution, FloatDistribution):
        return min(max(float(value), distribution.low), distribution.high)
    return int(value)
