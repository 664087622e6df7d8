"""Random sampling that depends on the slot alone."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

__all__ = ["SlotSampler", "slot_seed"]


def slot_seed(seed: int, slot: int, name: str) -> int:
    """A seed of 32 bits for one purpose within one slot."""
    return int(np.random.SeedSequence([seed, slot, zlib.crc32(name.encode())]).generate_state(1)[0])


class SlotSampler(optuna.samplers.BaseSampler):
    """Random sampling in which every value comes from (seed, trial number, hyperparameter's name) alone.

    So it depends neither on who ran first, nor on whether a killed process had already drawn a part of them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

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
        """Draw one value uniformly from its range or choices."""
        uniform = optuna.samplers.RandomSampler(seed=slot_seed(self.seed, trial.number, param_name))
        return uniform.sample_independent(study, trial, param_name, param_distribution)
