"""What the algorithms that learn share: a trial's values are chosen together, once, and kept with the trial."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ensembleflow.search.optuna_internals import StoredTrial, forget_cached_trials, whole_study
from ensembleflow.search.samplers.network_limits import NetworkLimits
from ensembleflow.search.samplers.slot import SlotSampler

__all__ = ["ModelSampler", "WholePointSampler", "known_values"]

# The trial's attribute with all its values, written before the first of them is used.
_VALUES_KEY = "ensembleflow:values"
_REDRAWN_KEY = "ensembleflow:redrawn"
# An algorithm's own proposals beyond the limits, after which a point is drawn at random.
_MAX_PROPOSALS = 50


def known_values(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's values, also while it is being given them; empty before it was drawn."""
    return {**trial.system_attrs.get(_VALUES_KEY, {}), **trial.params}


class WholePointSampler(optuna.samplers.BaseSampler):
    """A sampler that chooses all values of a trial at one go and writes them down before any is used.

    So a process killed between two values cannot mix what two states of the study suggest, and other processes see
    the whole point of a trial as soon as it is chosen. The draw is seeded by (seed, slot): where trials run one
    after the other, a search repeats itself exactly.

    Args:
        seed: the study's seed.
        space: each hyperparameter's range or choices.
        limits: the networks that may be proposed; None is all. Proposals beyond are made again, with another seed.
    """

    def __init__(self, seed: int, space: dict[str, BaseDistribution], limits: NetworkLimits | None = None) -> None:
        self.seed = seed
        self.space = {name: each for name, each in space.items() if not each.single()}
        self.limits = limits
        self.uniform = SlotSampler(seed, limits)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every hyperparameter with more than one value, whatever trials before have used."""
        return self.space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values written down with the trial; if there are none, choose them and write them down."""
        written: dict[str, Any] | None = trial.system_attrs.get(_VALUES_KEY)
        if written is not None:
            return written
        study = whole_study(study)
        forget_cached_trials(study)
        values, redrawn = self._propose_within_limits(study, trial) if self.space else ({}, [])
        stored = StoredTrial(study, trial)
        if redrawn:
            stored.set_system_attr(_REDRAWN_KEY, redrawn)
        stored.set_system_attr(_VALUES_KEY, values)
        return values

    def redrawn(self, study: optuna.Study, trial: FrozenTrial) -> list[int]:
        """The multiply-adds of the networks that were proposed for a trial and were beyond the limits."""
        return list(trial.system_attrs.get(_REDRAWN_KEY, []))

    def _propose_within_limits(self, study: optuna.Study, trial: FrozenTrial) -> tuple[dict[str, Any], list[int]]:
        outside: list[int] = []
        for attempt in range(_MAX_PROPOSALS):
            values = self.choose(study, trial, attempt)
            if not values and self.limits is not None:
                break
            for name, distribution in self.space.items():
                if name not in values:
                    values[name] = self.uniform.draw(study, trial, name, distribution, attempt)
            if self.limits is None:
                return values, outside
            size = self.limits.size(values)
            if self.limits.allows(size):
                return values, outside
            outside.append(size.multiply_adds)
        values, more = self.uniform.point(study, trial)
        return values, outside + more

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a value outside the space, as `SlotSampler` does."""
        return self.uniform.draw(study, trial, param_name, param_distribution)

    @abstractmethod
    def choose(self, study: optuna.Study, trial: FrozenTrial, attempt: int) -> dict[str, Any]:
        """Choose values for `space`, others at each attempt; those left out are drawn uniformly."""


class ModelSampler(WholePointSampler):
    """A sampler whose model of the trials so far chooses, once there are enough of them.

    Args:
        seed: the study's seed.
        space: each hyperparameter's range or choices.
        n_startup_trials: the first slots, drawn uniformly whenever they run. A later slot is drawn uniformly as well
            while fewer trials than that have ended with a value, as when many jobs start at once.
        limits: the networks that may be proposed; None is all.
    """

    def __init__(
        self,
        seed: int,
        space: dict[str, BaseDistribution],
        n_startup_trials: int,
        limits: NetworkLimits | None = None,
    ) -> None:
        super().__init__(seed, space, limits)
        self.n_startup_trials = n_startup_trials

    def choose(self, study: optuna.Study, trial: FrozenTrial, attempt: int) -> dict[str, Any]:
        """Nothing, that is uniform values, for the first trials; then what `propose` says."""
        if trial.number < self.n_startup_trials:
            return {}
        others = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        n_learned = sum(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in others)
        return self.propose(study, trial, others, attempt) if n_learned >= self.n_startup_trials else {}

    @abstractmethod
    def propose(
        self, study: optuna.Study, trial: FrozenTrial, others: Sequence[FrozenTrial], attempt: int
    ) -> dict[str, Any]:
        """Choose values for `space` by a model of the other trials; those left out are drawn uniformly."""
