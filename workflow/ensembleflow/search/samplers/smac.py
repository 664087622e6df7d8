"""SMAC3's models behind an Optuna sampler: its random forest for `smac`, its Gaussian process for `gp`."""

from __future__ import annotations

import logging
import math
import statistics
import warnings
from abc import abstractmethod
from collections.abc import Callable, KeysView, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from ConfigSpace.hyperparameters import Hyperparameter, IntegerHyperparameter
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from smac import BlackBoxFacade, HyperparameterOptimizationFacade, Scenario
from smac.acquisition.function import AbstractAcquisitionFunction
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

_N_RANDOM = 1000
_N_STARTS = 10  # of the best known points, and of the best random ones
_N_STEPS = 25
_N_NEIGHBOURS = 8

logging.getLogger("smac").setLevel(logging.ERROR)


def observations(trials: Sequence[FrozenTrial], names: KeysView[str]) -> list[tuple[dict[str, Any], float]]:
    """Each point that was drawn, by its values of `names`, and the value to minimise that the model learns.

    A completed trial has its value, a pruned one its last report. A failed one gets the worst of these, so that
    the model keeps away from where it failed; a running one their median (a constant liar, Ginsbourger et al. 2010),
    so that jobs side by side do not propose the same point. Of trials with equal values the first that ended counts.
    """
    drawn = [(trial, values) for trial in trials if names <= (values := known_values(trial)).keys()]
    reported = {trial.number: value for trial, _ in drawn if (value := _value(trial)) is not None}
    if not reported:
        return []
    worst, middle = max(reported.values()), statistics.median(reported.values())
    points: dict[tuple[Any, ...], float] = {}
    for trial, values in sorted(drawn, key=lambda pair: not pair[0].state.is_finished()):
        value = reported.get(trial.number, worst if trial.state.is_finished() else middle)
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

    Of SMAC's parts the model, the encoding of values, the acquisition function and the share of random points are
    used. Not its optimiser, which keeps its own files and would start the trials itself; nor its local search, which
    takes seconds a point and starts in an order that Python's string hashes decide.
    """

    _facade: type[AbstractFacade]

    @abstractmethod
    def _model(self, scenario: Scenario, n_observations: int) -> AbstractModel: ...

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, others: Sequence[FrozenTrial], attempt: int
    ) -> dict[str, Any]:
        """The new allowed point of the highest expected improvement; now and then, as SMAC does, a random one."""
        seed = slot_seed(self.seed, trial.number, "smac", attempt)
        space = ConfigurationSpace(seed=seed)
        space.add([_hyperparameter(name, each) for name, each in self.space.items()])
        scenario = Scenario(space, deterministic=True, n_trials=2**31 - 1, seed=seed)
        if self._facade.get_random_design(scenario).check(1):
            return {}
        # One thread: a cluster's node runs many jobs, and sums in another order would end in other values.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = RunHistory()
            for values, cost in observations(others, self.space.keys()):
                history.add(Configuration(space, values=values), cost=cost, status=StatusType.SUCCESS)
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
            starts = points[np.argsort(predicted, kind="stable")[:_N_STARTS]]
            configuration = _maximize(acquisition, space, points, starts, np.random.default_rng(seed), self._is_allowed)
        if configuration is None:
            return {}
        return self._values(configuration)

    def _is_allowed(self, configuration: Configuration) -> bool:
        return self.limits is None or self.limits.allows(self.limits.size(self._values(configuration)))

    def _values(self, configuration: Configuration) -> dict[str, Any]:
        return {name: _plain(configuration[name], each) for name, each in self.space.items()}


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
            n_restarts=min(10, 250 // n_observations),
            normalize_y=True,
            seed=scenario.seed,
        )


def _maximize(
    acquisition: AbstractAcquisitionFunction,
    space: ConfigurationSpace,
    known: npt.NDArray[np.float64],
    starts: npt.NDArray[np.float64],
    rng: np.random.Generator,
    is_allowed: Callable[[Configuration], bool],
) -> Configuration | None:
    """The allowed point outside `known` of the highest acquisition that random search and then local search find.

    Local search changes one hyperparameter at a time: a number by a normal step, which gets shorter, a choice to any.

    Args:
        acquisition: what to maximise.
        space: where.
        known: points that were tried, (points, hyperparameters), as ConfigSpace encodes them.
        starts: the best of them, where local search starts, beside the best random points.
        rng: decides everything.
        is_allowed: whether a point may be proposed.

    Returns:
        None if no new point was found, as where a space of choices is exhausted.
    """
    hyperparameters = list(space.values())
    n_choices = np.array([len(getattr(each, "choices", ())) for each in hyperparameters])

    def on_grid(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        for column, each in enumerate(hyperparameters):
            if isinstance(each, IntegerHyperparameter):
                points[:, column] = each.to_vector(each.to_value(points[:, column]))
        return points

    def score(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(acquisition([Configuration(space, vector=point) for point in points]))[:, 0]

    def random_points(n: int) -> npt.NDArray[np.float64]:
        uniform = rng.random((n, len(hyperparameters)))
        return on_grid(np.where(n_choices > 0, np.floor(uniform * n_choices), uniform))

    points = random_points(_N_RANDOM)
    scores = score(points)
    order = np.argsort(-scores, kind="stable")
    current = np.concatenate([starts, points[order[:_N_STARTS]]])
    best = np.concatenate([score(starts), scores[order[:_N_STARTS]]])
    tried, tried_scores = [points, current], [scores, best]
    for step in np.geomspace(0.2, 0.005, _N_STEPS):
        neighbours = np.repeat(current, _N_NEIGHBOURS, axis=0)
        rows, columns = np.arange(len(neighbours)), rng.integers(len(hyperparameters), size=len(neighbours))
        moved = np.clip(neighbours[rows, columns] + rng.normal(scale=step, size=len(neighbours)), 0, 1)
        neighbours[rows, columns] = np.where(n_choices[columns] > 0, random_points(len(rows))[rows, columns], moved)
        neighbours = on_grid(neighbours)
        scores = score(neighbours)
        tried, tried_scores = [*tried, neighbours], [*tried_scores, scores]
        by_start = scores.reshape(len(current), _N_NEIGHBOURS)
        winners = by_start.argmax(axis=1)
        better = by_start.max(axis=1) > best
        current[better] = neighbours.reshape(len(current), _N_NEIGHBOURS, -1)[np.flatnonzero(better), winners[better]]
        best = np.where(better, by_start.max(axis=1), best)
    every, every_score = np.concatenate(tried), np.concatenate(tried_scores)
    seen = {point.tobytes() for point in on_grid(known.copy())}
    for index in np.argsort(-every_score, kind="stable"):
        if every[index].tobytes() not in seen and is_allowed(found := Configuration(space, vector=every[index])):
            return found
    return None


def _hyperparameter(name: str, distribution: BaseDistribution) -> Hyperparameter[Any, Any]:
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(name, list(distribution.choices))
    if isinstance(distribution, FloatDistribution):
        return Float(name, (distribution.low, distribution.high), log=distribution.log)
    assert isinstance(distribution, IntDistribution)
    return Integer(name, (distribution.low, distribution.high), log=distribution.log)


def _plain(value: Any, distribution: BaseDistribution) -> Any:
    """Python's own number or text, within its range, out of which ConfigSpace's rounding may lead."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if choice == value)
    if isinstance(distribution, FloatDistribution):
        return min(max(float(value), distribution.low), distribution.high)
    return int(value)
