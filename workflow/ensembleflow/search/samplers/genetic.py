"""A genetic algorithm of successive generations."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ensembleflow.search.samplers.network_limits import NetworkLimits
from ensembleflow.search.samplers.slot import slot_seed
from ensembleflow.search.samplers.whole_point import WholePointSampler

__all__ = ["GeneticSampler", "parents_of"]


def parents_of(trials: list[FrozenTrial], generation: int, generation_size: int) -> list[FrozenTrial]:
    """The better half, at least two if there are, of the last generation before `generation` that has a value.

    Args:
        trials: all trials of the study.
        generation: whose parents to name, from 0.
        generation_size: slots a generation.
    """
    for earlier in range(generation - 1, -1, -1):
        slots = range(earlier * generation_size, (earlier + 1) * generation_size)
        completed = [each for each in trials if each.number in slots and each.state == TrialState.COMPLETE]
        if completed:
            completed.sort(key=lambda each: (each.value, each.number))
            return completed[: max(2, (len(completed) + 1) // 2)]
    return []


class GeneticSampler(WholePointSampler):
    """Slots in successive generations: the first at random, each later one bred from the one before.

    A child is a uniform crossover of two parents (nine times of ten, else a copy of one), each chosen as the better
    of two drawn at random; then each value is redrawn uniformly with probability 1 / number of hyperparameters.
    Crossover and tournament are those of Optuna's NSGA-II sampler. Failed trials are no parents.

    Args:
        seed: the study's seed.
        space: each hyperparameter's range or choices.
        generation_size: slots a generation.
        limits: the networks that may be proposed; None is all.
    """

    def __init__(
        self,
        seed: int,
        space: dict[str, BaseDistribution],
        generation_size: int,
        limits: NetworkLimits | None = None,
    ) -> None:
        super().__init__(seed, space, limits)
        self.generation_size = generation_size

    def choose(self, study: optuna.Study, trial: FrozenTrial, attempt: int) -> dict[str, Any]:
        """A child's values but for those to be redrawn; nothing, that is uniform values, without parents."""
        generation = trial.number // self.generation_size
        parents = parents_of(study.get_trials(deepcopy=False), generation, self.generation_size)
        if not parents:
            return {}
        return _Breeder(parents, slot_seed(self.seed, trial.number, "genetic", attempt)).sample_relative(
            study, trial, self.space
        )


class _Breeder(optuna.samplers.NSGAIISampler):
    """Optuna's sampler with the parents given, instead of found by counting the trials that ended first."""

    def __init__(self, parents: list[FrozenTrial], seed: int) -> None:
        super().__init__(seed=seed, crossover_prob=0.9 if len(parents) > 1 else 0.0)
        self._parents = parents

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return 1

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return self._parents
