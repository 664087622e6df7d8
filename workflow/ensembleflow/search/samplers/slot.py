"""Random sampling that depends on the slot alone."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from ensembleflow.models.network_size import NetworkSize
from ensembleflow.search.samplers.network_limits import NetworkLimits

__all__ = ["SlotSampler", "slot_seed"]


def slot_seed(seed: int, slot: int, name: str, attempt: int = 0) -> int:
    """A seed of 32 bits for one purpose within one slot, and for each attempt at it."""
    purpose = f"{name} {attempt}" if attempt else name
    return int(np.random.SeedSequence([seed, slot, zlib.crc32(purpose.encode())]).generate_state(1)[0])


class SlotSampler(optuna.samplers.BaseSampler):
    """Random sampling in which every value comes from (seed, trial number, hyperparameter's name) alone.

    So it depends neither on who ran first, nor on whether a killed process had already drawn a part of them. Within
    limits, points are drawn one after the other until one is inside; without, each value is drawn by itself.

    Args:
        seed: the study's seed.
        limits: the networks that may be drawn; None is all.
    """

    def __init__(self, seed: int, limits: NetworkLimits | None = None) -> None:
        self.seed = seed
        self.limits = limits
        # The slot's point that was found last: each of its values is asked for by itself.
        self._point: tuple[int, dict[str, Any], list[int]] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """None: every value is drawn by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None: every value is drawn by itself."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one value uniformly from its range or choices; within limits, that of the slot's point."""
        if self.limits is not None and param_name in self.limits.space:
            return self.point(study, trial)[0][param_name]
        return self.draw(study, trial, param_name, param_distribution)

    def draw(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        name: str,
        distribution: BaseDistribution,
        attempt: int = 0,
    ) -> Any:
        """Draw one value uniformly from its range or choices, whatever the limits."""
        uniform = optuna.samplers.RandomSampler(seed=slot_seed(self.seed, trial.number, name, attempt))
        return uniform.sample_independent(study, trial, name, distribution)

    def point(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> tuple[dict[str, Any], list[int]]:
        """The slot's first point within the limits, and the multiply-adds of those before it.

        Raises:
            SearchError: none of 10,000 points is within the limits, or of 200 where networks have to be built to know.
        """
        assert self.limits is not None
        if self._point is not None and self._point[0] == trial.number:
            return self._point[1:]
        free = {name: each for name, each in self.limits.space.items() if not each.single()}
        outside: list[NetworkSize] = []
        for attempt in range(self.limits.max_draws):
            values = {name: self.draw(study, trial, name, each, attempt) for name, each in free.items()}
            size = self.limits.size(values)
            if self.limits.allows(size):
                self._point = trial.number, values, [each.multiply_adds for each in outside]
                return self._point[1:]
            outside.append(size)
        raise self.limits.nothing_left(outside)

    def redrawn(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> list[int]:
        """The multiply-adds of the networks that were proposed for a trial and were beyond the limits."""
        return [] if self.limits is None else self.point(study, trial)[1]
