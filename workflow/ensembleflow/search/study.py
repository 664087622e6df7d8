"""The Optuna study behind the slots: slot i is trial number i."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from ensembleflow.config import SearchConfig
from ensembleflow.errors import SearchError
from ensembleflow.search.lease import Lease

__all__ = ["bracket_of", "claim_slot", "count_states", "open_storage", "open_study"]

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger("ensembleflow.search")


def open_storage(search_dir: str | Path) -> BaseStorage:
    """The journal beside the search's outputs: `{study}/search/study.journal`.

    Not an output itself: Snakemake deletes outputs before a job runs.
    """
    # Absolute, and with the open-file lock: the default lock never recovers from a killed writer.
    path = str(Path(search_dir).resolve() / "study.journal")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def open_study(storage: BaseStorage, name: str, search: SearchConfig, seed: int, slot: int = 0) -> optuna.Study:
    """Create the study or load it, with the sampler of one slot.

    The sampler is seeded by (seed, slot), so that a slot's hyperparameters do not depend on who ran first.
    """
    slot_seed = int(np.random.SeedSequence([seed, slot]).generate_state(1)[0])
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.algorithm == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=search.max_epochs, reduction_factor=search.reduction_factor
        )
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=optuna.samplers.RandomSampler(seed=slot_seed),
        pruner=pruner,
        direction="minimize",
        load_if_exists=True,
    )


def claim_slot(study: optuna.Study, slot: int, lease_dir: Path) -> optuna.Trial:
    """Take a slot's trial, which the caller must hold the lease of.

    Trials are made WAITING up to this slot, under a lease, so that their numbers are the slots and no two
    jobs can make one too many. A trial found RUNNING was left by a dead process and is resumed as it is;
    one found finished is returned as it is.
    """
    storage = study._storage  # Optuna has no public call to make trial number i or to claim it
    trials = study.get_trials(deepcopy=False)
    if len(trials) <= slot:
        with Lease(lease_dir / "new-trials.lease"):
            template = optuna.trial.create_trial(state=TrialState.WAITING)
            for _ in range(len(study.get_trials(deepcopy=False)), slot + 1):
                storage.create_new_trial(study._study_id, template_trial=template)
        trials = study.get_trials(deepcopy=False)
    frozen = trials[slot]
    if frozen.number != slot:
        raise SearchError("the study's trials are not numbered from 0", where=study.study_name, found=frozen.number)
    if frozen.state == TrialState.WAITING:
        storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
    return optuna.trial.Trial(study, frozen._trial_id)


def bracket_of(study: optuna.Study, slot: int) -> int | None:
    """The Hyperband bracket of a slot, or None for an algorithm without brackets."""
    pruner = study.pruner
    if not isinstance(pruner, optuna.pruners.HyperbandPruner):
        return None
    if not pruner._pruners:
        pruner._try_initialization(study)
    return int(pruner._get_bracket_id(study, study.get_trials(deepcopy=False)[slot]))


def count_states(study: optuna.Study) -> dict[TrialState, int]:
    """How many trials of the study are in each state."""
    trials = study.get_trials(deepcopy=False)
    return {state: sum(trial.state == state for trial in trials) for state in TrialState}
