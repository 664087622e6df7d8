"""Bringing Optuna's study up to the trials' records, so that any storage can be filled from the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from ensembleflow.config import SearchConfig
from ensembleflow.errors import SearchError
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.lease import Lease
from ensembleflow.search.optuna_internals import StoredTrial, rung_key
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.space import distributions
from ensembleflow.search.study import make_trials

__all__ = ["finish_trial", "sync_finished_trials", "sync_trial"]

logger = logging.getLogger("ensembleflow.search")


def sync_finished_trials(study: optuna.Study, store_dir: Path, search: SearchConfig) -> None:
    """Add to the study all finished trials of the store that it does not know, as where its storage is a new one.

    Samplers and pruner learn from the study alone, and the jobs of finished trials do not run again.

    Args:
        study: the study.
        store_dir: the folder of the trials' folders.
        search: the metric that the study minimises, and the space.

    Raises:
        ArtefactError: a record is damaged.
    """
    unknown = {record.slot: record for record in _finished(study, store_dir)}
    if not unknown:
        return
    logger.info("adding to the study %d finished trials that its storage does not know", len(unknown))
    make_trials(study, max(unknown) + 1, store_dir, {slot: _frozen(each, search) for slot, each in unknown.items()})
    for record in _finished(study, store_dir):
        with Lease(store_dir / f"{model_id(record.slot)}.lease", wait=False) as lease:
            if lease.held:  # otherwise its holder is about to do it
                finish_trial(study, record, search)


def _finished(study: optuna.Study, store_dir: Path) -> Iterator[TrialRecord]:
    """The records of trials that are finished, but not in the study."""
    known = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
    for folder in sorted(store_dir.glob("trial-*[0-9]")):
        if int(folder.name.removeprefix("trial-")) not in known:
            record = TrialStore(folder).read_alone()
            if record is not None and record.finished:
                yield record


def sync_trial(study: optuna.Study, record: TrialRecord, search: SearchConfig) -> None:
    """Bring the study up to a trial's record, but for its end.

    That is an epoch whose process died between the record and the report; everything where the storage is a new one.

    Args:
        study: the study.
        record: of a trial that is RUNNING in the study.
        search: the metric that the study minimises, and the space.
    """
    recorded, known = _frozen(record, search), study.get_trials(deepcopy=False)[record.slot]
    stored = StoredTrial(study, known)
    for name, distribution in recorded.distributions.items():
        if name not in known.params:
            stored.set_param(name, recorded.params[name], distribution)
    for epoch, metric in recorded.intermediate_values.items():
        if epoch not in known.intermediate_values:
            stored.set_intermediate_value(epoch, metric)
    for key, value in recorded.system_attrs.items():
        if key not in known.system_attrs:
            stored.set_system_attr(key, value)


def finish_trial(study: optuna.Study, record: TrialRecord, search: SearchConfig) -> None:
    """Bring the study up to a finished trial's record, its end included, unless it has that already.

    Raises:
        SearchError: the study has another end.
    """
    recorded, known = _frozen(record, search), study.get_trials(deepcopy=False)[record.slot]
    if known.state.is_finished():
        if known.state != recorded.state:
            raise SearchError(
                f"trial {record.slot} ended twice",
                where=study.study_name,
                found=f"{known.state.name} in Optuna's storage",
                expected=f"{recorded.state.name} as in its record",
            )
        return
    stored = StoredTrial(study, known)
    if known.state == TrialState.WAITING:
        stored.claim()
    sync_trial(study, record, search)
    for key, value in recorded.user_attrs.items():
        stored.set_user_attr(key, value)
    study.tell(record.slot, recorded.value if recorded.state == TrialState.COMPLETE else None, state=recorded.state)


def _frozen(record: TrialRecord, search: SearchConfig) -> FrozenTrial:
    """A record in Optuna's terms: the trial as it stands in a study that has followed it."""
    space = {name: each for name, each in distributions(search).items() if name in record.hyperparameters}
    metrics = {each.epoch: float(getattr(each, f"valid_{search.metric}")) for each in record.epochs}
    state = TrialState[record.state]
    trial = optuna.trial.create_trial(
        state=state,
        value=metrics[len(metrics)] if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={name: record.hyperparameters[name] for name in space},
        distributions=space,
        user_attrs={"reason": record.reason} if record.reason else {},
        # What the pruner compares. It is not asked about a trial that has all its epochs.
        system_attrs={
            rung_key(each.rung): metrics[each.epoch]
            for each in record.epochs
            if each.rung is not None and each.epoch < search.max_epochs
        },
        intermediate_values=metrics,
    )
    if record.started_at is not None and record.ended_at is not None:
        trial.datetime_start = datetime.fromtimestamp(record.started_at)
        trial.datetime_complete = datetime.fromtimestamp(record.ended_at)
    return trial
