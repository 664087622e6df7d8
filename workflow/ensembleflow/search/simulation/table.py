"""The plan as a table: a row a number of devices, beside what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ensembleflow.config import SearchConfig
from ensembleflow.search.remaining import readable_duration
from ensembleflow.search.simulation.busy import MOST_TRIALS, trials_to_keep_busy
from ensembleflow.search.simulation.limits import Limits
from ensembleflow.search.simulation.recording import Recording
from ensembleflow.search.simulation.simulate import LOSSES, Simulation, simulate
from ensembleflow.search.simulation.trials import TrialSource

__all__ = ["plan_rows", "print_plan"]

# Snakemake's limit in profiles/slurm.
_PROFILE_JOBS = 100


def plan_rows(
    search: SearchConfig,
    recording: Recording,
    device_counts: Sequence[int],
    limits: Limits,
    *,
    busy: float = 0.8,
    seed: int = 0,
    time_factor: float = 1.0,
    study_name: str = "simulated",
    recorded_algorithm: str | None = None,
    concurrent_trials: int = 1,
    accounts: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Simulate a search on each number of devices, and look for the trials that keep them busy.

    Args:
        search: the planned search.
        recording: whose trials are replayed.
        device_counts: numbers of devices.
        limits: what the jobs wait for.
        busy: the occupancy wanted of the number of trials that is looked for.
        seed: of what is drawn.
        time_factor: the planned devices' time for a trial, by that of the recorded ones.
        study_name: of Optuna's study, on which the brackets depend.
        recorded_algorithm: of the recording.
        concurrent_trials: that a job trains side by side.
        accounts: what `account_search` says of the recording; its row comes first.

    Returns:
        A row a number of devices; times in seconds, shares from 0 to 1, `source` is `recorded` or `simulated`.
    """
    source = TrialSource(recording, search.max_epochs, seed, time_factor)

    def run(n_trials: int, n_devices: int) -> Simulation:
        return simulate(
            search.model_copy(update={"n_trials": n_trials}),
            source,
            n_devices,
            limits,
            study_name=study_name,
            recorded_algorithm=recorded_algorithm,
            concurrent_trials=concurrent_trials,
        )

    rows = [_recorded_row(accounts)] if accounts else []
    for n_devices in device_counts:
        simulation = run(search.n_trials, n_devices)
        enough = trials_to_keep_busy(
            lambda n_trials, n_devices=n_devices: run(n_trials, n_devices),  # type: ignore[misc]
            n_devices,
            search.trials_per_job,
            busy,
        )
        rows.append({**_simulated_row(simulation, search), "busy_trials": enough})
    table = pd.DataFrame(rows)
    table["busy_trials"] = table["busy_trials"].astype("Int64")
    return table


def _recorded_row(accounts: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": "recorded",
        "n_devices": accounts["n_devices"],
        "n_trials": accounts["trials"]["all"],
        "duration_seconds": accounts["duration_seconds"],
        "epochs": accounts["epochs"]["trained"],
        "stopped": accounts["trials"]["pruned"],
        "occupancy": accounts["occupancy"],
        "tail_seconds": accounts["idle_tail"]["seconds"],
        "tail_device_seconds": accounts["idle_tail"]["device_seconds"],
        "speed_up": accounts["speed_up"],
        "job_device_hours": accounts["held_seconds"] / 3600,
        "reserved_device_hours": accounts["duration_seconds"] * accounts["n_devices"] / 3600,
        "busy_trials": None,
    }


def _simulated_row(simulation: Simulation, search: SearchConfig) -> dict[str, Any]:
    return {
        "source": "simulated",
        "n_devices": simulation.n_devices,
        "n_trials": simulation.n_trials,
        "duration_seconds": simulation.duration_seconds,
        "epochs": sum(simulation.epochs),
        "stopped": len(simulation.stopped),
        "occupancy": simulation.occupancy,
        "tail_seconds": simulation.tail_seconds,
        "tail_device_seconds": simulation.tail_device_seconds,
        "speed_up": simulation.speed_up,
        "job_device_hours": simulation.job_seconds / 3600,
        "reserved_device_hours": simulation.duration_seconds * simulation.n_devices / 3600,
        "limit": simulation.limit,
        **{f"lost_{name}_seconds": simulation.lost_seconds[name] for name in LOSSES},
        "storage_load": simulation.storage_load,
        "algorithm": search.algorithm,
        "trials_per_job": search.trials_per_job,
        "max_epochs": search.max_epochs,
    }


def print_plan(
    console: Console, rows: pd.DataFrame, search: SearchConfig, recording: Recording, *, device: str, busy: float
) -> None:
    """Print what `plan_rows` found; `device` is the word for one of them."""
    console.print(
        f"simulated from {recording.origin}:\n{search.algorithm}, {search.n_trials} trials of at most "
        f"{search.max_epochs} epochs, {search.trials_per_job} a job",
        soft_wrap=True,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    names = ("duration", "epochs", "occu-\npied", "idle\ntail", "speed-\nup", f"{device}\nhours", "limit")
    for name in (f"{device}s", *names, f"{busy:.0%} busy\nfrom trials"):
        table.add_column(name, justify="left" if name == "limit" else "right", no_wrap=True, vertical="bottom")
    for row in rows.to_dict("records"):
        recorded = row["source"] == "recorded"
        enough = row["busy_trials"]
        table.add_row(
            f"{row['n_devices']:,}",
            _duration(row["duration_seconds"]),
            f"{row['epochs']:,}",
            f"{row['occupancy']:.0%}",
            _duration(row["tail_seconds"]),
            f"{row['speed_up']:.1f}",
            f"{row['job_device_hours']:,.2f}",
            "(recorded)" if recorded else row["limit"],
            "" if recorded else "-" if pd.isna(enough) else f"{enough:,}",
        )
    console.print(table)
    for note in _notes(rows, search, device):
        console.print(note, soft_wrap=True)


def _duration(seconds: float) -> str:
    """As narrow as a column wants it."""
    if seconds < 0.5:
        return "0 s"
    return f"{seconds / 3600:,.0f} h" if seconds >= 100 * 3600 else readable_duration(seconds)


def _notes(rows: pd.DataFrame, search: SearchConfig, device: str) -> list[str]:
    notes = [
        f"{device}-hours: while a job holds a {device}; the limit is what more than a tenth of all {device}s' time "
        "is lost to"
    ]
    if rows.loc[rows["source"] == "simulated", "busy_trials"].isna().any():
        notes.append(
            f"-: not up to {MOST_TRIALS:,} trials, or never, where starts, storage or the scheduler take too much"
        )
    n_jobs = -(-search.n_trials // search.trials_per_job)
    most = int(rows["n_devices"].max())
    if most > n_jobs:
        notes.append(f"{n_jobs} jobs use {n_jobs} {device}s at most: more of them need more trials, or fewer a job")
    if most > _PROFILE_JOBS:
        notes.append(
            f"profiles/slurm has at most {_PROFILE_JOBS} jobs at a time: for {most} {device}s add --jobs {most}"
        )
    return notes
