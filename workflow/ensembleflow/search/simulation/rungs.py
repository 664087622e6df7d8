"""Optuna's Hyperband at virtual time: the bracket of each slot, and whom a rung stops."""

from __future__ import annotations

import math
from bisect import insort

import optuna

from ensembleflow.search.optuna_internals import hyperband_bracket, n_hyperband_brackets
from ensembleflow.search.trial import rung_of

__all__ = ["HyperbandRungs"]


class HyperbandRungs:
    """The decisions of `optuna.pruners.HyperbandPruner`, each in logarithmic time.

    Optuna's pruner goes through all trials of the study at each decision, which is nothing beside an epoch of
    training, but minutes for the tens of thousands of trials that keep a thousand devices busy. The brackets
    are Optuna's own; the decision is its rule, kept with sorted lists, and the tests hold it equal to Optuna's.

    Args:
        study_name: Optuna's brackets follow from it and the trial's number.
        min_epochs: Hyperband's min_resource.
        max_epochs: its max_resource.
        reduction_factor: the best 1 / reduction_factor of a rung go on.
    """

    def __init__(self, study_name: str, min_epochs: int, max_epochs: int, reduction_factor: int) -> None:
        pruner = optuna.pruners.HyperbandPruner(min_epochs, max_epochs, reduction_factor)
        self._study = optuna.create_study(study_name=study_name, pruner=pruner)
        self._trial = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
        self._reduction_factor = reduction_factor
        self._rung_of = [
            {
                epoch: rung
                for epoch in range(1, max_epochs)  # a trial with all its epochs is complete: nobody asks
                if (rung := rung_of(epoch, bracket, min_epochs, reduction_factor)) is not None
            }
            for bracket in range(n_hyperband_brackets(self._study))
        ]
        self._values: dict[tuple[int, int], list[float]] = {}

    def bracket(self, slot: int) -> int:
        """The bracket of a slot."""
        self._trial.number = slot
        return hyperband_bracket(self._study, self._trial)

    def rung(self, bracket: int, epoch: int) -> int | None:
        """The rung at which a trial that has finished `epoch` epochs is judged, or None."""
        return self._rung_of[bracket].get(epoch)

    def stops(self, bracket: int, rung: int, value: float) -> bool:
        """Whether a trial that reaches a rung with this metric ends there; it counts for all that come later."""
        if math.isnan(value):
            return True
        values = self._values.setdefault((bracket, rung), [])
        insort(values, value)
        return value > values[max(len(values) // self._reduction_factor - 1, 0)]
