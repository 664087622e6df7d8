"""The Optuna study behind the slots: slot i is trial number i."""

from __future__ import annotations

import copy
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from ensembleflow.config import SearchConfig
from ensembleflow.errors import SearchError
from ensembleflow.search.lease import Lease

__all__ = ["SlotSampler", "bracket_of", "claim_slot", "count_states", "open_storage", "open_study", "should_stop"]

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger("ensembleflow.search")


class SlotSampler(optuna.samplers.BaseSampler):
    """Random sampling in which every value comes from (seed, trial number, hyperparameter's name) alone.

    So it depends neither on who ran first, nor on whether a killed process had already drawn a part of them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """None: every value is drawn by itself."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        """None: every value is drawn by itself."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Draw one value uniformly from its range or choices."""
        words = np.random.SeedSequence([self.seed, trial.number, zlib.crc32(param_name.encode())]).generate_state(1)
        uniform = optuna.samplers.RandomSampler(seed=int(words[0]))
        return uniform.sample_independent(study, trial, param_name, param_distribution)


def open_storage(search_dir: str | Path) -> BaseStorage:
    """The journal beside the search's outputs: `{study}/search/study.journal`.

    Not an output itself: Snakemake deletes outputs before a job runs.
    """
    # Absolute, and with the open-file lock: the default lock never recovers from a killed writer.
    path = Path(search_dir).resolve() / "study.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    _drop_torn_line(path, lock)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _drop_torn_line(path: Path, lock: JournalFileOpenLock) -> None:
    """Cut off a last line that a full disk or a power cut left unfinished; the next one would be glued to it."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with open(path, "rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                logger.warning("%s ended in an unfinished line, which was dropped", path)
                file.truncate(whole)
    finally:
        lock.release()


def open_study(storage: BaseStorage, name: str, search: SearchConfig, seed: int) -> optuna.Study:
    """Create the study or load it."""
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.algorithm == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=search.max_epochs, reduction_factor=search.reduction_factor
        )
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=SlotSampler(seed),
        pruner=pruner,
        direction="minimize",
        load_if_exists=True,
    )


def should_stop(study: optuna.Study, slot: int, rung: int | None) -> bool:
    """Ask the pruner about a trial's last report; asked again, as after a kill, it answers alike.

    Optuna's own `Trial.should_prune` notes that the rung is done, and then says no when asked again.

    Args:
        study: the study.
        slot: the trial's number.
        rung: the rung that the trial has just reached, or None between rungs.
    """
    trial = copy.deepcopy(study.get_trials(deepcopy=False)[slot])
    trial.system_attrs.pop(f"completed_rung_{rung}", None)
    return bool(study.pruner.prune(study, trial))


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
