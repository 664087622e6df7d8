"""The frozen tables of a study: what later stages read, independent of Optuna's storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_json, write_csv
from ensembleflow.models.hyperparameters import FAMILY, Hyperparameters, TrainingHyperparameters
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.record import Epoch, TrialAttempt, TrialRecord, TrialStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EPOCH_COLUMNS",
    "RUN_COLUMNS",
    "TRIAL_COLUMNS",
    "freeze_tables",
    "hyperparameter_columns",
    "tables_so_far",
]

TRIAL_COLUMNS = [
    "slot",
    "model",
    "state",
    "reason",
    "bracket",
    "epochs",
    "valid_error",
    "valid_macro_f1_error",
    "valid_cross_entropy",
    "n_parameters",
    "n_redrawn",
    "redrawn_multiply_adds",
    "weights_sha256",
    "started_at",
    "ended_at",
    "duration_seconds",
    "build_seconds",
    "input_seconds",
    "step_seconds",
    "valid_seconds",
    "checkpoint_seconds",
    "storage_seconds",
    "energy_joules",
    "attempts",
    "host",
    "device",
]
"""The columns of `trials.csv` before those of the hyperparameters, which every family has its own of."""
# What a trial of an earlier version has not drawn, it trained without.
_OF_LATER_VERSIONS = {
    each.name: each.default for each in fields(TrainingHyperparameters) if each.default is not MISSING
}
EPOCH_COLUMNS = ["slot", "model", "bracket", *Epoch.__dataclass_fields__]
RUN_COLUMNS = ["slot", "model", "run", *TrialAttempt.__dataclass_fields__]


def freeze_tables(
    job_jsons: Sequence[str | Path], trials_csv: str | Path, epochs_csv: str | Path, runs_csv: str | Path
) -> None:
    """Gather the jobs' trials into three tables: a row for each trial, epoch, and process that worked on a trial.

    `duration_seconds` is the sum of the epochs' times: waiting between a kill and the resume is not in it.

    Raises:
        ArtefactError: a job's file is damaged, or the jobs' slots are not 0, 1, 2, … once each.
    """
    records = [
        TrialRecord.from_dict(values)
        for path in job_jsons
        for values in read_json(path, expected_keys=("trials", "slots"))["trials"]
    ]
    records.sort(key=lambda record: record.slot)
    slots = [record.slot for record in records]
    if slots != list(range(len(slots))):
        raise ArtefactError(
            "the search jobs' trials are not one a slot",
            where=Path(job_jsons[0]).parent,
            found=f"slots {slots}",
            expected=f"0 to {len(slots) - 1}, once each",
        )
    trials, epochs, runs = _tables(records)
    write_csv(trials_csv, trials)
    write_csv(epochs_csv, epochs)
    write_csv(runs_csv, runs)


def hyperparameter_columns(trials: pd.DataFrame) -> list[str]:
    """The columns of a table of trials that hold hyperparameters."""
    return [str(name) for name in trials.columns if name not in TRIAL_COLUMNS]


def tables_so_far(search_dir: Path) -> dict[str, pd.DataFrame]:
    """What `freeze_tables` will write, of a search that still runs: a table by its file's name below the study.

    Read from the trials' records in `{study}/search/store`; empty before the first epoch. A trial that has not ended
    is `RUNNING`. Where the store holds several studies, it is the one worked on last.

    Raises:
        ArtefactError: a record is damaged.
    """
    found = [(path.stat().st_mtime, path) for path in search_dir.glob("store/*/trial-*/record.json")]
    if not found:
        return {}
    store = max(found)[1].parents[1]
    records = [TrialStore(folder).read_alone() for folder in sorted(store.glob("trial-*[0-9]"))]
    trained = [record for record in records if record is not None and record.runs]
    if not any(record.epochs for record in trained):
        return {}
    names = ("search/trials.csv", "search/epochs.csv", "search/runs.csv")
    return dict(zip(names, _tables(trained), strict=True))


def _tables(records: list[TrialRecord]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A row for each trial, epoch, and process that worked on a trial."""
    import pandas as pd  # takes half a second, which a search job need not spend

    names = dict.fromkeys(name for record in records for name in record.hyperparameters) or Hyperparameters.names()
    trials = pd.DataFrame([_trial_row(record) for record in records], columns=[*TRIAL_COLUMNS, *names])
    whole = ["bracket", "n_parameters"]
    trials[whole] = trials[whole].astype("Int64")
    epochs = pd.DataFrame([row for record in records for row in _epoch_rows(record)], columns=EPOCH_COLUMNS)
    epochs[["bracket", "rung"]] = epochs[["bracket", "rung"]].astype("Int64")
    runs = pd.DataFrame([row for record in records for row in _run_rows(record)], columns=RUN_COLUMNS)
    return trials, epochs, runs


def _trial_row(record: TrialRecord) -> dict[str, Any]:
    last = record.epochs[-1] if record.epochs else None
    energies = [run.energy_joules for run in record.runs if run.energy_joules is not None]
    return {
        "slot": record.slot,
        "model": model_id(record.slot),
        "state": record.state,
        "reason": record.reason,
        "bracket": record.bracket,
        "epochs": len(record.epochs),
        "valid_error": last and last.valid_error,
        "valid_macro_f1_error": last and last.valid_macro_f1_error,
        "valid_cross_entropy": last and last.valid_cross_entropy,
        "n_parameters": record.n_parameters,
        "n_redrawn": len(record.redrawn),
        "redrawn_multiply_adds": sum(record.redrawn),
        "weights_sha256": record.weights_sha256,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "duration_seconds": sum(epoch.ended_at - epoch.started_at for epoch in record.epochs),
        **{f"{phase}_seconds": seconds for phase, seconds in vars(record.seconds).items()},
        "energy_joules": sum(energies) if energies else None,
        "attempts": record.attempts,
        "host": record.runs[-1].host,
        "device": record.runs[-1].device,
        **_used(record.hyperparameters),
    }


def _used(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a study with several families, a trial's values without those of others than its own."""
    own = f"{hyperparameters.get(FAMILY)}."
    used = {name: value for name, value in hyperparameters.items() if "." not in name or name.startswith(own)}
    return {**_OF_LATER_VERSIONS, **used}


def _epoch_rows(record: TrialRecord) -> list[dict[str, Any]]:
    identity = {"slot": record.slot, "model": model_id(record.slot), "bracket": record.bracket}
    return [{**identity, **vars(epoch)} for epoch in record.epochs]


def _run_rows(record: TrialRecord) -> list[dict[str, Any]]:
    identity = {"slot": record.slot, "model": model_id(record.slot)}
    return [{**identity, "run": number, **vars(run)} for number, run in enumerate(record.runs)]
