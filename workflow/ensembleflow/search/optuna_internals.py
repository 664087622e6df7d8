"""Everything that the search uses of Optuna beyond what Optuna documents.

Optuna has no public call to make trial number i, to claim it, to go on with it in another process, to fill in a trial
that a new storage does not know, or to name a trial's Hyperband bracket. `tests/search/test_optuna_internals.py` holds
each use against the installed version, and `pyproject.toml` bounds the versions: raise the bound with that test.
"""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "StoredTrial",
    "add_trial",
    "bracket_of",
    "forget_cached_trials",
    "hyperband_bracket",
    "n_hyperband_brackets",
    "rung_key",
    "should_stop",
    "whole_study",
]


class StoredTrial:
    """One trial in its study's storage, to be written whoever asked for it.

    Args:
        study: the trial's study.
        trial: the trial, or what the study says of it.
    """

    def __init__(self, study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> None:
        self._study = study
        self._storage: BaseStorage = study._storage
        self._trial_id = trial._trial_id

    def claim(self) -> None:
        """Make a WAITING trial RUNNING."""
        self._storage.set_trial_state_values(self._trial_id, TrialState.RUNNING)

    def attach(self) -> optuna.Trial:
        """A handle that reports to the trial and asks for its values, as the process that began it had."""
        return optuna.trial.Trial(self._study, self._trial_id)

    def set_param(self, name: str, value: Any, distribution: BaseDistribution) -> None:
        """Note a hyperparameter's value."""
        self._storage.set_trial_param(self._trial_id, name, distribution.to_internal_repr(value), distribution)

    def set_intermediate_value(self, step: int, value: float) -> None:
        """Note a report."""
        self._storage.set_trial_intermediate_value(self._trial_id, step, value)

    def set_system_attr(self, key: str, value: Any) -> None:
        """Note what a sampler or pruner keeps with the trial."""
        self._storage.set_trial_system_attr(self._trial_id, key, value)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Note what the user keeps with the trial."""
        self._storage.set_trial_user_attr(self._trial_id, key, value)


def add_trial(study: optuna.Study, template: FrozenTrial) -> None:
    """Add a trial like `template`, whose number is how many the study had; nothing of it is checked."""
    study._storage.create_new_trial(study._study_id, template_trial=template)


def whole_study(study: optuna.Study) -> optuna.Study:
    """The study itself, where Optuna shows a sampler the trials of one Hyperband bracket only."""
    whole: optuna.Study = getattr(study, "_study", study)
    return whole


def forget_cached_trials(study: optuna.Study) -> None:
    """Have a sampler see all trials as they are now.

    Optuna renews what it remembers of them in `Study.ask`, which an attached trial does not go through.
    """
    study._thread_local.cached_all_trials = None


def bracket_of(study: optuna.Study, slot: int) -> int | None:
    """The Hyperband bracket of a slot, or None for an algorithm without brackets."""
    if not isinstance(study.pruner, optuna.pruners.HyperbandPruner):
        return None
    return hyperband_bracket(study, study.get_trials(deepcopy=False)[slot])


def hyperband_bracket(study: optuna.Study, trial: FrozenTrial) -> int:
    """The bracket that a Hyperband study puts a trial of this number in."""
    return int(_hyperband(study)._get_bracket_id(study, trial))


def n_hyperband_brackets(study: optuna.Study) -> int:
    """How many brackets a Hyperband study has."""
    return len(_hyperband(study)._pruners)


def _hyperband(study: optuna.Study) -> optuna.pruners.HyperbandPruner:
    """The study's pruner with its brackets, which it makes when it is first asked."""
    pruner = study.pruner
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    if not pruner._pruners:
        pruner._try_initialization(study)
    return pruner


def rung_key(rung: int) -> str:
    """The attribute in which Optuna's pruner keeps a trial's value at a rung."""
    return f"completed_rung_{rung}"


def should_stop(study: optuna.Study, slot: int, rung: int | None) -> bool:
    """Ask the pruner about a trial's last report; asked again about the same rivals, it answers alike.

    Optuna's own `Trial.should_prune` notes that the rung is done, and then says no when asked again.

    Args:
        study: the study.
        slot: the trial's number.
        rung: the rung that the trial has just reached, or None between rungs.
    """
    trial = copy.deepcopy(study.get_trials(deepcopy=False)[slot])
    if rung is not None and trial.system_attrs.pop(rung_key(rung), None) is not None:
        study = copy.copy(study)
        study._storage = _StorageBeforeRung(study._storage, trial)  # type: ignore[assignment]
    return bool(study.pruner.prune(study, trial))


class _StorageBeforeRung:
    """A study's storage in which one trial is as it was before its rung: it would count among its own rivals."""

    def __init__(self, storage: BaseStorage, trial: FrozenTrial) -> None:
        self._storage = storage
        self._trial = trial

    def get_all_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(*arguments, **options)
        return [self._trial if trial.number == self._trial.number else trial for trial in trials]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
