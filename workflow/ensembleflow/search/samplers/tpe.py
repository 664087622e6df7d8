"""The tree-structured Parzen estimator, for `tpe` and `bohb`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from ensembleflow.search.samplers.slot import slot_seed
from ensembleflow.search.samplers.whole_point import ModelSampler

__all__ = ["ParzenSampler"]


class ParzenSampler(ModelSampler):
    """Optuna's multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018) over all trials of the study.

    Good trials are the best tenth, at most 25: completed ones first, by their value; only where these do not
    suffice, pruned ones, those that got furthest first, then by their last value. All other pruned trials and the
    running ones count as bad, failed ones not at all. Under Hyperband the model so learns from the longest trained
    trials of all brackets, as BOHB's does, and not only from those of the trial's own bracket.
    """

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, others: Sequence[FrozenTrial], attempt: int
    ) -> dict[str, Any]:
        """Of 24 points drawn from the good trials' density, the one that is likeliest among good against bad."""
        estimator = optuna.samplers.TPESampler(
            n_startup_trials=self.n_startup_trials,
            n_ei_candidates=24,
            multivariate=True,
            constant_liar=True,
            seed=slot_seed(self.seed, trial.number, "tpe", attempt),
        )
        return estimator.sample_relative(study, trial, self.space)
