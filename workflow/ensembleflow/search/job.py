"""One search job: its slots, one after the other."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna

from ensembleflow.config.plan import SearchPlan, model_id
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import SearchError
from ensembleflow.io import atomic_directory, link_or_copy, provenance, write_json
from ensembleflow.models import configure_tensorflow
from ensembleflow.search.lease import Lease
from ensembleflow.search.progress import progress_line
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.study import claim_slot, open_storage, open_study
from ensembleflow.search.trial import train_trial

__all__ = ["run_search_job"]

logger = logging.getLogger("ensembleflow.search")


def run_search_job(
    plan_json: str,
    dataset_path: str | Path,
    search_dir: str | Path,
    output_json: str | Path,
    output_models: str | Path,
    threads: int = 1,
    use_gpu: bool = False,
    n_trials: int | None = None,
) -> None:
    """Train, resume or find finished each slot of the plan, then write the job's two outputs.

    Args:
        plan_json: what `plan_job` made.
        dataset_path: the prepared dataset.
        search_dir: `{study}/search`, where the journal and the store lie.
        output_json: the job's trials with their epochs.
        output_models: folder of one `.keras` file a trial that finished an epoch.
        threads: CPU cores to use.
        use_gpu: train on a GPU if there is one; otherwise GPUs are hidden.
        n_trials: trials of the whole study, for the progress line only.
    """
    plan = SearchPlan.from_json(plan_json)
    search_dir = Path(search_dir)
    with _sigterm_ends_cleanly(), open_dataset(dataset_path) as data:
        fingerprint = plan.fingerprint(data.checksum)
        study_name = f"{plan.study}-{fingerprint}"
        storage = open_storage(search_dir)
        store_dir = search_dir / "store" / fingerprint
        study = open_study(storage, study_name, plan.search, plan.seed)
        records = {}
        tensorflow_ready = False
        for slot in plan.slots:
            with Lease(store_dir / f"{model_id(slot)}.lease") as lease:
                store = TrialStore(store_dir / model_id(slot), check=lease.check)
                record = _finished(store, study, slot)
                if record is None:
                    if not tensorflow_ready:
                        configure_tensorflow(threads, use_gpu=use_gpu, training=True)
                        tensorflow_ready = True
                    trial = claim_slot(study, slot, store_dir)
                    record = train_trial(study, trial, store, plan.search, plan.seed, data)
                    logger.info(
                        progress_line(study, plan.search.metric, n_trials or len(plan.slots)), extra={"progress": True}
                    )
                records[slot] = record
    _write_outputs(plan, study_name, store_dir, records, Path(output_json), Path(output_models))


@contextmanager
def _sigterm_ends_cleanly() -> Iterator[None]:
    """Let SIGTERM (scancel, a time limit) end the process as Ctrl-C does: through its `finally` blocks."""

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _finished(store: TrialStore, study: optuna.Study, slot: int) -> TrialRecord | None:
    """The record of a slot that both the store and the study say is finished."""
    record = store.read()
    trials = study.get_trials(deepcopy=False)
    told = slot < len(trials) and trials[slot].state.is_finished()
    if told and (record is None or not record.finished):
        raise SearchError(
            f"trial {slot} is finished in the journal, but its weights are gone",
            where=store.folder,
            hint="restore the folder, or delete it and study.journal to search anew",
        )
    return record if told else None


def _write_outputs(
    plan: SearchPlan,
    study_name: str,
    store_dir: Path,
    records: dict[int, TrialRecord],
    output_json: Path,
    output_models: Path,
) -> None:
    with atomic_directory(output_models) as folder:
        for slot, record in records.items():
            if record.epochs:
                link_or_copy(TrialStore(store_dir / model_id(slot)).model_path, folder / f"{model_id(slot)}.keras")
    write_json(
        output_json,
        {
            "study": plan.study,
            "optuna_study": study_name,
            "slots": plan.slots,
            "metric": plan.search.metric,
            "trials": [records[slot].to_dict() for slot in plan.slots],
            "provenance": provenance(),
        },
    )
