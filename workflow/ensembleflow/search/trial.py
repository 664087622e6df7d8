"""Training one slot's trial, from wherever an earlier process left it."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import optuna

from ensembleflow.config import SearchConfig
from ensembleflow.datasets import Dataset
from ensembleflow.errors import ArtefactError, EnsembleflowError, FamilyError, StorageError
from ensembleflow.models import (
    BatchStatistics,
    EpochResult,
    Family,
    FamilyHyperparameters,
    Hyperparameters,
    Trainer,
    TrainingHyperparameters,
    augmentation_of,
    build_resnet,
    class_weights,
    classification_metrics,
    device_id,
    device_name,
    gpu_energy_joules,
    model_function,
    prediction_batch_size,
    restore_checkpoint,
    save_checkpoint,
    save_model,
    steps_per_epoch,
    uncompiled,
    weights_sha256,
)
from ensembleflow.models.device_memory import is_out_of_memory
from ensembleflow.models.phases import Phase
from ensembleflow.search.optuna_internals import StoredTrial, bracket_of, should_stop
from ensembleflow.search.record import Epoch, TrialAttempt, TrialRecord, TrialStore
from ensembleflow.search.samplers import redrawn_networks
from ensembleflow.search.space import hyperparameters_of, suggest_values
from ensembleflow.search.stop import StopSignals
from ensembleflow.search.sync_to_optuna import finish_trial, sync_trial

if TYPE_CHECKING:
    import keras

__all__ = [
    "MAX_ATTEMPTS",
    "DoesNotFitBesideOthersError",
    "TrainingProcess",
    "rung_of",
    "train_trial",
]

logger = logging.getLogger("ensembleflow.search")

# A trial whose process ended this often in the same epoch, and not by a signal to stop, is given up: most likely
# the system kills it for its memory, and would do so for ever.
MAX_ATTEMPTS = 5


@dataclass
class TrainingProcess:
    """The process that trains, as far as its trials are concerned.

    Attributes:
        started_at: when it was started, Unix seconds.
        ready_at: when TensorFlow was ready in it, Unix seconds.
        threads: CPU threads that prepare batches.
        alone: whether no other process of its job trains beside it.
        signals: what may stop it.
        log_progress: called after each epoch.
    """

    started_at: float
    ready_at: float
    threads: int = 1
    alone: bool = True
    signals: StopSignals = field(default_factory=StopSignals)
    log_progress: Callable[[], None] = lambda: None


class DoesNotFitBesideOthersError(Exception):
    """A trial ran out of memory that other trials share; it may have enough alone."""


class _TrialFailedError(Exception):
    """The trial cannot go on; nothing else is concerned."""


def rung_of(epoch: int, bracket: int | None, min_epochs: int, reduction_factor: int) -> int | None:
    """The rung that a trial of `bracket` reaches at `epoch` (from 1), or None between rungs.

    Rung k of bracket s is at min_epochs * reduction_factor ** (s + k) epochs (Li et al. 2017; Optuna counts alike).
    """
    if bracket is None:
        return None
    rung, resource = 0, min_epochs * reduction_factor**bracket
    while resource < epoch:
        rung, resource = rung + 1, resource * reduction_factor
    return rung if resource == epoch else None


def train_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    store: TrialStore,
    search: SearchConfig,
    seed: int,
    data: Dataset,
    process: TrainingProcess,
    families: Mapping[str, Family] = MappingProxyType({}),
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
        process: the process that calls.
        families: those of the study other than `resnet`, by name.

    Raises:
        ArtefactError: the trial's files are damaged.
        DoesNotFitBesideOthersError: out of memory in a process that is not alone; the trial can be resumed.
    """
    record = store.read() or TrialRecord(slot=trial.number)
    if record.hyperparameters and not record.finished:
        sync_trial(study, record, search)
        trial = StoredTrial(study, trial).attach()  # the old one does not look at its storage again
    if not record.finished:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.discard_leftovers()
        record = _Training(study, trial, store, record, search, seed, data, process, families).run()
    finish_trial(study, record, search)
    return record


class _Training:
    """One process's work on one trial."""

    def __init__(
        self,
        study: optuna.Study,
        trial: optuna.Trial,
        store: TrialStore,
        record: TrialRecord,
        search: SearchConfig,
        seed: int,
        data: Dataset,
        process: TrainingProcess,
        families: Mapping[str, Family],
    ) -> None:
        self.study, self.trial, self.store, self.record = study, trial, store, record
        self.search, self.seed, self.data, self.process = search, seed, data, process
        self.seconds = record.seconds
        self.hyperparameters = self._begin()
        self.family: Family | None = None
        if isinstance(self.hyperparameters, FamilyHyperparameters):
            self.family = families[self.hyperparameters.family]

    def run(self) -> TrialRecord:
        """Train to the end; the finished record, which the study has still to get."""
        record = self.record
        try:
            record.state, trainer = self._end()
        except (EnsembleflowError, OSError, DoesNotFitBesideOthersError, KeyboardInterrupt, SystemExit):
            # A full disk, a lost database, Ctrl-C or SIGTERM is no fault of the trial, which must not be given
            # up for it.
            record.attempts -= 1
            record.state, record.reason = "RUNNING", ""
            with suppress(StorageError):
                self._write()
            raise
        with self.process.signals.postponed():
            record.ended_at = time.time()
            if trainer is not None:
                with self.seconds.measure("checkpoint"), trainer.evaluated_weights():
                    self._keep(trainer.model)
            self._write()
        return record

    def _end(self) -> tuple[str, Trainer | None]:
        """The state that the trial ends in, and the trainer with its network; None for a failed one that left none."""
        record = self.record
        try:
            if record.attempts > MAX_ATTEMPTS:
                raise _TrialFailedError(
                    f"its process ended unexpectedly {MAX_ATTEMPTS} times in epoch {len(record.epochs) + 1}: "
                    "perhaps out of memory, or killed at its job's time limit"
                )
            with self._memory_watched():
                state, trainer = self._train()
                return state, trainer or self._restored()
        except (_TrialFailedError, FamilyError) as failure:
            # Other points of a family's space may well do.
            record.reason = f"{failure.what}: {failure.found}" if isinstance(failure, FamilyError) else str(failure)
            logger.warning("trial %d failed: %s", record.slot, failure)
        try:
            with self._memory_watched():
                return "FAIL", self._restored() if record.epochs else None
        except (_TrialFailedError, FamilyError):
            return "FAIL", None

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        """Tell a lack of memory, which is the trial's fault where no other one shares it, from other errors."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not self.process.alone:
                raise DoesNotFitBesideOthersError from error
            message = str(error).partition("\n")[0][:200] or type(error).__name__
            raise _TrialFailedError(f"out of memory in epoch {len(self.record.epochs) + 1}: {message}") from error

    def _begin(self) -> TrainingHyperparameters:
        record, now = self.record, time.time()
        record.hyperparameters = suggest_values(self.trial, self.search)
        record.redrawn = redrawn_networks(self.study, self.trial)
        record.bracket = bracket_of(self.study, record.slot)
        record.attempts += 1
        record.started_at = record.started_at or now
        record.runs.append(
            TrialAttempt(
                host=socket.gethostname(),
                device=device_name(),
                device_id=device_id(),
                process_id=os.getpid(),
                process_started_at=self.process.started_at,
                ready_at=self.process.ready_at,
                started_at=now,
                ended_at=now,
                first_epoch=len(record.epochs) + 1,
            )
        )
        self.energy_at_start = gpu_energy_joules() if record.runs[-1].device_id != "cpu" else None
        self._write()
        return hyperparameters_of(record.hyperparameters, self.search)

    def _write(self) -> None:
        run = self.record.runs[-1]
        run.ended_at = time.time()
        run.epochs = len(self.record.epochs) + 1 - run.first_epoch
        if self.energy_at_start is not None:
            energy = gpu_energy_joules()
            run.energy_joules = None if energy is None else energy - self.energy_at_start
        self.store.write(self.record)

    def _train(self) -> tuple[str, Trainer | None]:
        """Train to the end: the state that the trial ends in, and its trainer unless the checkpoint is as good."""
        record, epoch = self.record, len(self.record.epochs)
        if record.stopped or self._stops():
            return "PRUNED", None
        with self.seconds.measure("build"):
            trainer = self._trainer()
            model, function = trainer.model, model_function(trainer.model, self.data.image_dtype)
            train_images, train_labels = self.data.image_array("train"), self.data.labels("train")
            valid_images, valid_labels = self.data.image_array("valid"), self.data.labels("valid")
        record.n_parameters = model.count_params()
        batch_size = prediction_batch_size(self.data.image_shape)
        while epoch < self.search.max_epochs:
            epoch, started_at = epoch + 1, time.time()
            trainer.begin_epoch(epoch)
            training = trainer.train_epoch(train_images, train_labels, (self.seed, record.slot, epoch))
            with self.seconds.measure("valid"), trainer.evaluated_weights():
                metrics = classification_metrics(function.predict(valid_images, batch_size), valid_labels)
            _refuse_divergence(epoch, training, metrics)
            self._finish_epoch(trainer, epoch, started_at, training, metrics)
            if self._stops():
                return "PRUNED", trainer
        return "COMPLETE", trainer

    def _trainer(self) -> Trainer:
        """The network with its compiled step, at the end of the last finished epoch."""
        import keras

        keras.backend.clear_session()
        keras.utils.set_random_seed(int(np.random.SeedSequence([self.seed, self.record.slot]).generate_state(1)[0]))
        model = self._network()
        own_augmentation = None if self.family is None else self.family.augmentation
        images, labels = self.data.image_array("train"), self.data.labels("train")
        batch_statistics = None
        if self.search.batch_statistics == "recomputed":
            batch_statistics = BatchStatistics(model, images, prediction_batch_size(self.data.image_shape))
        trainer = Trainer(
            model,
            self.hyperparameters,
            self.search.max_epochs * steps_per_epoch(len(labels), self.hyperparameters),
            averaged=self.search.average == "power",
            batch_statistics=batch_statistics,
            class_weights=class_weights(self.search.class_weights, labels, self.data.class_names),
            image_weights=self.data.training_weights(),
            threads=self.process.threads,
            augmentation=augmentation_of(self.data.image_shape, self.data.standardisation, own_augmentation),
            image_dtype=self.data.image_dtype,
            phases=self._phases(model),
            epoch=max(1, len(self.record.epochs)),
        )
        if self.record.epochs:
            try:
                restore_checkpoint(trainer, self.store.checkpoint_path(len(self.record.epochs)))
            except ArtefactError as error:
                error.hint = self.store.way_out
                raise
            logger.info("trial %d goes on after epoch %d", self.record.slot, len(self.record.epochs))
        return trainer

    def _phases(self, model: keras.Model) -> list[Phase]:
        if self.family is None:
            return []
        assert isinstance(self.hyperparameters, FamilyHyperparameters)
        return self.family.phases(self.hyperparameters, model)

    def _network(self) -> keras.Model:
        hyperparameters, shape, n_classes = self.hyperparameters, self.data.image_shape, self.data.n_classes
        how = (f"trial_{self.record.slot}", self.search.precision, self.data.standardisation)
        if isinstance(hyperparameters, Hyperparameters):
            return build_resnet(hyperparameters, shape, n_classes, *how)
        assert self.family is not None
        assert isinstance(hyperparameters, FamilyHyperparameters)
        return self.family.build(hyperparameters, shape, n_classes, *how)

    def _restored(self) -> Trainer:
        """The training as the last finished epoch left it."""
        with self.seconds.measure("checkpoint"):
            return self._trainer()

    def _finish_epoch(
        self, trainer: Trainer, epoch: int, started_at: float, training: EpochResult, metrics: dict[str, float]
    ) -> None:
        """Write the epoch down where a later process finds it, then report it."""
        record = self.record
        self.seconds.add("input", training.input_seconds)
        self.seconds.add("step", training.step_seconds)
        with self.process.signals.postponed():
            with self.seconds.measure("checkpoint"):
                self.store.check()
                save_checkpoint(trainer, self.store.checkpoint_path(epoch))
            with self.seconds.measure("storage"):
                record.epochs.append(
                    Epoch(
                        epoch=epoch,
                        rung=rung_of(epoch, record.bracket, self.search.min_epochs, self.search.reduction_factor),
                        started_at=started_at,
                        ended_at=time.time(),
                        train_cross_entropy=training.cross_entropy,
                        train_error=training.error,
                        valid_error=metrics["error"],
                        valid_macro_f1_error=metrics["macro_f1_error"],
                        valid_cross_entropy=metrics["cross_entropy"],
                        learning_rate=trainer.learning_rate,
                    )
                )
                record.attempts = 1
                self._write()
                self.trial.report(metrics[self.search.metric], step=epoch)
        name = self.search.metric
        logger.info("trial %d epoch %d: %s %.4f", record.slot, epoch, name, metrics[name])
        self.process.log_progress()

    def _stops(self) -> bool:
        """Whether the pruner ends the trial here. One with all its epochs is complete: nothing is left to save.

        Its answer is written down: asked again after a kill, it might know of more trials.
        """
        record = self.record
        epoch = len(record.epochs)
        if not 0 < epoch < self.search.max_epochs or record.epochs[-1].rung is None or record.continued == epoch:
            return False
        with self.seconds.measure("storage"):
            record.stopped = should_stop(self.study, record.slot, record.epochs[-1].rung)
            if not record.stopped:
                record.continued = epoch
            self._write()
        return record.stopped

    def _keep(self, trained: keras.Model) -> None:
        """Save the weights, the average if there is one, without the optimizer's state."""
        model = uncompiled(trained)
        self.record.weights_sha256 = weights_sha256(model)
        self.store.check()
        save_model(model, self.store.model_path)


def _refuse_divergence(epoch: int, training: EpochResult, metrics: dict[str, float]) -> None:
    if not math.isfinite(training.loss):
        raise _TrialFailedError(f"diverged in epoch {epoch}: training loss {training.loss}")
    if not all(map(math.isfinite, metrics.values())):
        raise _TrialFailedError(f"diverged in epoch {epoch}: predictions are not finite")
