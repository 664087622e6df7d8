"""One search job: its slots, one after the other or several side by side, and its two outputs."""

from __future__ import annotations

from pathlib import Path

from ensembleflow.io import atomic_directory, link_or_copy, provenance, write_json
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.job_spec import JobSpec
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.running_job import RunningJob, start_job
from ensembleflow.search.side_by_side import train_side_by_side
from ensembleflow.search.stop import StopSignals

__all__ = ["run_search_job"]


def run_search_job(
    spec: JobSpec, output_json: str | Path, output_models: str | Path, concurrent_trials: int = 1
) -> None:
    """Train, resume or find finished each slot of the job's plan, then write the job's two outputs.

    Args:
        spec: the slots, the data, and where everything lies.
        output_json: the job's trials with their epochs.
        output_models: folder of one `.keras` file a trial that left a model.
        concurrent_trials: trials trained side by side, each in a process of its own.

    Raises:
        SearchError: the storage cannot be reached, or contradicts the config or the trials' files.
    """
    with StopSignals() as signals, start_job(spec) as job:
        slots = job.plan.slots
        try:
            n_processes = min(concurrent_trials, sum(not job.is_finished(slot) for slot in slots))
            if n_processes > 1:
                train_side_by_side(spec, n_processes, job.log_progress)
            # What ran out of the memory that it shared is trained now, alone.
            records = {slot: job.train(slot, signals) for slot in slots}
        except SystemExit:
            job.log_kept()
            raise
    _write_outputs(job, records, Path(output_json), Path(output_models))


def _write_outputs(
    job: RunningJob, records: dict[int, TrialRecord | None], output_json: Path, output_models: Path
) -> None:
    with atomic_directory(output_models) as folder:
        for slot, record in records.items():
            if record is not None and record.weights_sha256:
                link_or_copy(TrialStore(job.store_dir / model_id(slot)).model_path, folder / f"{model_id(slot)}.keras")
    write_json(
        output_json,
        {
            "study": job.plan.study,
            "optuna_study": job.study.study_name,
            "slots": job.plan.slots,
            "metric": job.plan.search.metric,
            "trials": [record.to_dict() for record in records.values() if record is not None],
            "provenance": provenance(),
        },
    )
