"""A search job at work: its dataset and its study open, its slots trained, its progress logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import optuna

from ensembleflow.datasets import Dataset, open_dataset
from ensembleflow.errors import SearchError
from ensembleflow.models import Family, configure_tensorflow, device_id, load_family
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.job_spec import JobSpec
from ensembleflow.search.lease import Lease
from ensembleflow.search.ownership import claim_study
from ensembleflow.search.process_start import process_started_at
from ensembleflow.search.progress import progress_line, read_progress
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.samplers import network_limits
from ensembleflow.search.stop import StopSignals
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study, warn_of_other_versions
from ensembleflow.search.study_family import check_resnet_takes, checked_plan, family_copy
from ensembleflow.search.sync_to_optuna import sync_finished_trials
from ensembleflow.search.trial import TrainingProcess, train_trial

__all__ = ["RunningJob", "start_job"]

logger = logging.getLogger("ensembleflow.search")

# A job logs how far the search is this often, and whenever a trial ends.
LOG_SECONDS = 30.0


class RunningJob:
    """A job with its dataset and its study open.

    Args:
        spec: what the job is to train.
        data: its dataset.

    Raises:
        FamilyError: the residual networks do not take samples of the dataset's shape.
        SearchError: the storage cannot be reached, or contradicts the config, or another folder has the study.
    """

    def __init__(self, spec: JobSpec, data: Dataset) -> None:
        self.spec = spec
        self.data = data
        self.plan = checked_plan(spec.plan, spec.search_dir)
        check_resnet_takes(self.plan.search, data.image_shape)
        self.store_dir = Path(spec.search_dir) / "store" / self.plan.fingerprint(data.checksum)
        storage = open_storage(Path(spec.search_dir), spec.storage_url)
        limits = network_limits(self.plan.search, data.image_shape, data.n_classes, self._families)
        self.study: optuna.Study = open_study(storage, self.plan, data.checksum, limits)
        claim_study(self.study, self.store_dir)
        if 0 in self.plan.slots:  # one of the study's jobs warns for all
            warn_of_other_versions(storage, self.plan)
        sync_finished_trials(self.study, self.store_dir, self.plan.search)
        self._ready_at: float | None = None
        self._n_finished_logged = 0
        self._logged_at = process_started_at()

    def train(self, slot: int, signals: StopSignals, *, alone: bool = True) -> TrialRecord | None:
        """Train a slot's trial, or find it finished; None if another process has it and this one is not alone."""
        with Lease(self.store_dir / f"{model_id(slot)}.lease", wait=alone) as lease:
            if not lease.held:
                return None
            record = self._finished_record(slot)
            if record is None:
                process = self._process(signals, alone)
                trial = claim_slot(self.study, slot, self.store_dir)
                store = TrialStore(self.store_dir / model_id(slot), check=lease.check)
                search, seed = self.plan.search, self.plan.seed
                record = train_trial(self.study, trial, store, search, seed, self.data, process, self._families())
                self.log_progress()
            return record

    def is_finished(self, slot: int) -> bool:
        """Whether the study says that a slot's trial is finished."""
        trials = self.study.get_trials(deepcopy=False)
        return slot < len(trials) and trials[slot].state.is_finished()

    def _finished_record(self, slot: int) -> TrialRecord | None:
        """The record of a slot that both the store and the study say is finished; the slot's lease must be held."""
        store = TrialStore(self.store_dir / model_id(slot))
        record = store.read()
        if not self.is_finished(slot):
            return None
        if record is None or not record.finished:
            raise SearchError(
                f"trial {slot} is finished in Optuna's storage, but its weights are gone",
                where=store.folder,
                hint=store.way_out,
            )
        return record

    def log_progress(self) -> None:
        """One line on the terminal: how far the study is.

        Only if a trial of this job has ended since the last line, or that was long ago.
        """
        own = set(self.plan.slots)
        trials = self.study.get_trials(deepcopy=False)
        n_finished = sum(trial.number in own and trial.state.is_finished() for trial in trials)
        now = time.time()
        if n_finished == self._n_finished_logged and not self._is_silent(now):
            return
        self._n_finished_logged, self._logged_at = n_finished, now
        n_trials = self.spec.n_trials or len(self.plan.slots)
        progress = read_progress(self.study, self.store_dir, self.plan.search, n_trials)
        logger.info(progress_line(progress), extra={"progress": True})

    def _log_after_epoch(self) -> None:
        # Epochs may be short: the storage is not read for each.
        if self._is_silent(time.time()):
            self.log_progress()

    def _is_silent(self, now: float) -> bool:
        return now >= self._logged_at + LOG_SECONDS

    def log_kept(self) -> None:
        """One line on the terminal: what is kept of the job's trials that have not ended."""
        records = [TrialStore(self.store_dir / model_id(slot)).read_alone() for slot in self.plan.slots]
        kept = [
            f"{model_id(record.slot)} up to epoch {len(record.epochs)} of {self.plan.search.max_epochs}"
            for record in records
            if record is not None and not record.finished and record.epochs
        ]
        text = "stopped; kept: %s" if kept else "stopped before a first epoch was done%s"
        logger.info(text, ", ".join(kept), extra={"progress": True})

    @cache  # noqa: B019 - a process has one job
    def _families(self) -> dict[str, Family]:
        """The study's families other than `resnet`, by name, once TensorFlow is set up."""
        names = self.plan.search.own_families
        return {name: load_family(family_copy(self.spec.search_dir, name)) for name in names}

    def _process(self, signals: StopSignals, alone: bool) -> TrainingProcess:
        if self._ready_at is None:
            configure_tensorflow(self.spec.threads, use_gpu=self.spec.use_gpu, training=True)
            if self.spec.use_gpu and device_id() == "cpu":
                self._without_gpu()
            self._ready_at = time.time()
        started_at = process_started_at()
        # Beside others it is their parent that logs.
        log_progress = self._log_after_epoch if alone else lambda: None
        return TrainingProcess(started_at, self._ready_at, self.spec.threads, alone, signals, log_progress)

    def _without_gpu(self) -> None:
        hint = "look at nvidia-smi on this machine, and whether requirements-gpu.lock is installed"
        if self.plan.search.precision != "float32":
            raise SearchError(
                "no GPU can be used, which mixed precision needs",
                where=f"search.precision: {self.plan.search.precision}",
                found="resources.search.gpus is above 0, but TensorFlow finds none",
                hint=hint,
            )
        logger.warning("this job asked for a GPU, but TensorFlow finds none: it trains on the CPU; %s", hint)


@contextmanager
def start_job(spec: JobSpec) -> Iterator[RunningJob]:
    """Open a job's dataset and its study.

    Raises:
        ArtefactError: the dataset is missing or damaged.
        SearchError: the storage cannot be reached, or contradicts the config.
    """
    with open_dataset(spec.dataset_path) as data:
        yield RunningJob(spec, data)
