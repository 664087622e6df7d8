"""Trials that cost nothing, each with the record that a search job would leave."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.trial import TrialState

from ensembleflow.config import Config
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.optuna_internals import bracket_of, should_stop
from ensembleflow.search.record import Epoch, TrialAttempt, TrialRecord, TrialStore
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.study import claim_slot
from ensembleflow.search.trial import rung_of
from support.slot_study import N_EPOCHS, error_of


def epoch_of(epoch: int, error: float = 0.5, rung: int | None = None) -> Epoch:
    return Epoch(
        epoch=epoch,
        rung=rung,
        started_at=time.time(),
        ended_at=time.time(),
        train_cross_entropy=0.0,
        train_error=0.0,
        valid_error=error,
        valid_macro_f1_error=error + 1,
        valid_cross_entropy=error + 2,
        learning_rate=0.001,
    )


def run_of(
    process_id: int, started_at: float, ended_at: float, start_seconds: float = 0.0, epochs: int = 0
) -> TrialAttempt:
    return TrialAttempt(
        host="node",
        device="CPU",
        device_id="cpu",
        process_id=process_id,
        process_started_at=started_at - start_seconds,
        ready_at=started_at,
        started_at=started_at,
        ended_at=ended_at,
        first_epoch=1,
        epochs=epochs,
    )


def run_recorded(study: optuna.Study, config: Config, slots: Iterable[int], store_dir: Path) -> None:
    """Run trials, of which every seventh fails, as Optuna's users do, and write their records down."""
    for slot in slots:
        trial = claim_slot(study, slot, store_dir)
        hyperparameters = suggest_hyperparameters(trial, config.search)
        record = TrialRecord(slot=slot, hyperparameters=hyperparameters.to_dict(), bracket=bracket_of(study, slot))
        record.started_at, record.state = time.time() - 100, "COMPLETE"
        while record.state == "COMPLETE" and len(record.epochs) < N_EPOCHS:
            epoch = len(record.epochs) + 1
            if slot % 7 == 6 and epoch == 2:
                record.state, record.reason = "FAIL", "diverged"
                trial.set_user_attr("reason", record.reason)
                break
            rung = rung_of(epoch, record.bracket, config.search.min_epochs, config.search.reduction_factor)
            record.epochs.append(epoch_of(epoch, error_of(hyperparameters) + 0.1 / epoch, rung))
            trial.report(record.epochs[-1].valid_error, step=epoch)
            if epoch < N_EPOCHS and should_stop(study, slot, rung):
                record.state = "PRUNED"
        value = record.epochs[-1].valid_error if record.state == "COMPLETE" else None
        study.tell(trial, value, state=TrialState[record.state])
        record.ended_at = time.time()
        TrialStore(store_dir / model_id(slot)).write(record)


def known(study: optuna.Study) -> list[tuple[object, ...]]:
    """All that samplers, pruner and people learn from a study's trials."""
    return [
        (
            trial.number,
            trial.state,
            trial.params,
            trial.value,
            trial.intermediate_values,
            trial.user_attrs,
            {key: value for key, value in trial.system_attrs.items() if key.startswith("completed_rung")},
        )
        for trial in study.get_trials()
    ]
