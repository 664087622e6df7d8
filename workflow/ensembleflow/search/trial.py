"""Training one slot's trial, from wherever an earlier process left it."""

from __future__ import annotations

import logging
import math
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import TrialState

from ensembleflow.config import SearchConfig
from ensembleflow.datasets import Dataset
from ensembleflow.errors import EnsembleflowError, SearchError, StorageError
from ensembleflow.models import (
    Hyperparameters,
    Trainer,
    build_resnet,
    classification_metrics,
    device_name,
    load_model,
    model_function,
    prediction_batch_size,
    save_model,
    weights_sha256,
)
from ensembleflow.search.record import Epoch, TrialRecord, TrialStore
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.study import bracket_of, should_stop

if TYPE_CHECKING:
    import keras

__all__ = ["MAX_ATTEMPTS", "finish_in_study", "rung_of", "train_trial"]

logger = logging.getLogger("ensembleflow.search")

# A trial whose process was killed this often in the same epoch, and not by SIGTERM, is given up: most likely the
# system kills it for its memory, and would do so for ever.
MAX_ATTEMPTS = 5

# Larger training sets are read batch by batch; all jobs of a machine then share the page cache.
_MAX_BYTES_IN_MEMORY = 2**30


def rung_of(epoch: int, bracket: int | None, reduction_factor: int) -> int | None:
    """The rung that a trial of `bracket` reaches at `epoch` (from 1), or None between rungs.

    Rung k of bracket s is at reduction_factor ** (s + k) epochs (Li et al. 2017; Optuna counts alike).
    """
    if bracket is None:
        return None
    rung, resource = 0, reduction_factor**bracket
    while resource < epoch:
        rung, resource = rung + 1, resource * reduction_factor
    return rung if resource == epoch else None


def train_trial(
    study: optuna.Study, trial: optuna.Trial, store: TrialStore, search: SearchConfig, seed: int, data: Dataset
) -> TrialRecord:
    """Train a claimed trial until it completes, is pruned or fails, and record which and why.

    After each epoch, in this order: checkpoint, record, report, and only then the pruner is asked; so a
    process killed anywhere goes on from its last finished epoch, with the same random numbers.

    Args:
        study: the Optuna study.
        trial: RUNNING, its slot's lease held by the caller.
        store: the trial's folder.
        search: metric, epochs, space.
        seed: the study's seed.
        data: the open dataset.

    Raises:
        ArtefactError: the trial's files are damaged.
    """
    slot = trial.number
    record = store.read() or TrialRecord(slot=slot)
    if record.finished:
        finish_in_study(study, trial, record, search)
        return record
    store.folder.mkdir(parents=True, exist_ok=True)
    store.discard_leftovers()
    hyperparameters = suggest_hyperparameters(trial, search.space)
    record.hyperparameters = hyperparameters.to_dict()
    record.bracket = bracket_of(study, slot)
    record.attempts += 1
    record.host = socket.gethostname()
    record.started_at = record.started_at or time.time()
    store.write(record)
    _report_missing(study, trial, record, search)
    try:
        if record.attempts > MAX_ATTEMPTS:
            raise _TrialFailedError(
                f"its process was killed {MAX_ATTEMPTS} times in epoch {len(record.epochs) + 1}: probably out of memory"
            )
        state, model = _train(study, trial, record, store, hyperparameters, search, seed, data)
    except _TrialFailedError as failure:
        state, model, record.reason = "FAIL", None, str(failure)
        logger.warning("trial %d failed: %s", slot, failure)
    except (EnsembleflowError, OSError, KeyboardInterrupt, SystemExit):
        # A full disk, Ctrl-C or SIGTERM is no fault of the trial, which must not be given up for it.
        record.attempts -= 1
        with suppress(StorageError):
            store.write(record)
        raise
    record.state = state
    record.ended_at = time.time()
    if record.epochs:
        _keep_model(store, record, model or load_model(store.checkpoint_path(len(record.epochs))))
    store.write(record)
    finish_in_study(study, trial, record, search)
    return record


class _TrialFailedError(Exception):
    """The trial cannot go on; nothing else is concerned."""


def _stops(study: optuna.Study, record: TrialRecord, search: SearchConfig) -> bool:
    """Whether the pruner ends the trial here. One that has all its epochs is complete: nothing is left to save."""
    if not 0 < len(record.epochs) < search.max_epochs:
        return False
    return should_stop(study, record.slot, record.epochs[-1].rung)


def _train(
    study: optuna.Study,
    trial: optuna.Trial,
    record: TrialRecord,
    store: TrialStore,
    hyperparameters: Hyperparameters,
    search: SearchConfig,
    seed: int,
    data: Dataset,
) -> tuple[str, keras.Model | None]:
    """Train to the end: the state that the trial ends in, and its model unless the checkpoint is as good."""
    import keras
    import tensorflow as tf

    keras.backend.clear_session()
    keras.utils.set_random_seed(int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0]))
    epoch = len(record.epochs)
    try:
        if record.stopped or _stops(study, record, search):
            return "PRUNED", None
        if epoch == 0:
            model = build_resnet(hyperparameters, data.image_shape, data.n_classes, name=f"trial_{trial.number}")
        else:
            model = load_model(store.checkpoint_path(epoch))
            logger.info("trial %d goes on after epoch %d", trial.number, epoch)
        record.device, record.n_parameters = device_name(), model.count_params()
        trainer = Trainer(model, hyperparameters)
        function = model_function(model)
        valid_images, valid_labels = data.images("valid"), data.labels("valid")
        batch_size = prediction_batch_size(data.image_shape)
        train_images, train_labels = _training_images(data), data.labels("train")
        while epoch < search.max_epochs:
            epoch += 1
            started_at = time.time()
            training = trainer.train_epoch(train_images, train_labels, (seed, trial.number, epoch))
            metrics = classification_metrics(function.predict(valid_images, batch_size), valid_labels)
            if not math.isfinite(training.loss):
                raise _TrialFailedError(f"diverged in epoch {epoch}: training loss {training.loss}")
            if not all(map(math.isfinite, metrics.values())):
                raise _TrialFailedError(f"diverged in epoch {epoch}: predictions are not finite")
            save_model(model, store.checkpoint_path(epoch))
            record.epochs.append(
                Epoch(
                    epoch=epoch,
                    rung=rung_of(epoch, record.bracket, search.reduction_factor),
                    started_at=started_at,
                    ended_at=time.time(),
                    train_cross_entropy=training.cross_entropy,
                    train_error=training.error,
                    valid_error=metrics["error"],
                    valid_macro_f1_error=metrics["macro_f1_error"],
                    valid_cross_entropy=metrics["cross_entropy"],
                    learning_rate=hyperparameters.learning_rate,
                )
            )
            record.attempts = 1
            store.write(record)
            trial.report(metrics[search.metric], step=epoch)
            logger.info("trial %d epoch %d: %s %.4f", trial.number, epoch, search.metric, metrics[search.metric])
            if _stops(study, record, search):
                record.stopped = True
                store.write(record)
                return "PRUNED", model
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        told = str(error).partition("\n")[0][:200] or type(error).__name__
        raise _TrialFailedError(f"out of memory in epoch {epoch}: {told}") from error
    return "COMPLETE", model


def _training_images(data: Dataset) -> npt.NDArray[np.uint8]:
    stored = data.image_array("train")
    return stored[...] if stored.nbytes <= _MAX_BYTES_IN_MEMORY else stored


def _keep_model(store: TrialStore, record: TrialRecord, trained: keras.Model) -> None:
    """Save the last epoch's weights without the optimizer's state, which is twice their size."""
    import keras

    model = keras.Model(trained.inputs, trained.outputs, name=trained.name)  # the same layers, uncompiled
    record.weights_sha256 = weights_sha256(model)
    save_model(model, store.model_path)


def finish_in_study(study: optuna.Study, trial: optuna.Trial, record: TrialRecord, search: SearchConfig) -> None:
    """Tell Optuna what the record says, unless it knows already.

    Raises:
        SearchError: Optuna knows something else.
    """
    state = TrialState[record.state]
    known = study.get_trials(deepcopy=False)[record.slot].state
    if known.is_finished():
        if known != state:
            raise SearchError(
                f"trial {record.slot} ended twice",
                where=study.study_name,
                found=f"{known.name} in the journal",
                expected=f"{state.name} as in its record",
            )
        return
    if record.reason:
        trial.set_user_attr("reason", record.reason)
    value = None if state == TrialState.FAIL else getattr(record.epochs[-1], f"valid_{search.metric}")
    study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)


def _report_missing(study: optuna.Study, trial: optuna.Trial, record: TrialRecord, search: SearchConfig) -> None:
    """Report epochs whose process died between the record and the report."""
    known = study.get_trials(deepcopy=False)[record.slot].intermediate_values
    for epoch in record.epochs:
        if epoch.epoch not in known:
            trial.report(getattr(epoch, f"valid_{search.metric}"), step=epoch.epoch)
