"""Where the time of a search went: duration, occupancy of each device, idle tail, brackets, lost work.

Everything is computed from the frozen tables, so it can be repeated long after the search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.errors import ArtefactError, SearchError
from ensembleflow.io import read_csv, write_json
from ensembleflow.search.record import TrialAttempt

__all__ = [
    "AttemptRow",
    "account_search",
    "account_study",
    "assign_lanes",
    "merge_intervals",
    "process_spans",
    "read_runs",
    "require_tables",
    "union_seconds",
    "write_accounting",
]

PARTS = ("build", "input", "step", "valid", "checkpoint", "storage")


@dataclass(kw_only=True)
class AttemptRow(TrialAttempt):
    """An attempt as `runs.csv` has it.

    Attributes:
        slot: the trial's number.
        run: which of the trial's attempts it is, from 0.
        lane: names the device: a GPU's UUID, or its host and number where no UUID is known; CPU workers have none, so
            that each host's processes are put into as few lanes as they need (`assign_lanes`).
    """

    slot: int
    run: int
    lane: str = ""


_TABLES = ("trials.csv", "epochs.csv", "runs.csv")
_RUN_COLUMNS = [name for name in AttemptRow.__dataclass_fields__ if name != "lane"]
_TRIAL_COLUMNS = ["slot", "state", "bracket", "epochs", *(f"{part}_seconds" for part in PARTS)]
_EPOCH_COLUMNS = ["slot", "bracket", "epoch", "rung", "started_at", "ended_at"]


def require_tables(search_dir: str | Path, purpose: str, hint: str) -> None:
    """Refuse a folder without a finished search's tables.

    Args:
        search_dir: `{study}/search`.
        purpose: what they are wanted for, after "to".
        hint: what to do where there are none.

    Raises:
        SearchError: a table is missing.
    """
    missing = [name for name in _TABLES if not Path(search_dir, name).exists()]
    if missing:
        raise SearchError(
            f"there is no finished search to {purpose}",
            where=search_dir,
            found=f"no {', '.join(missing)}",
            expected="the tables of a finished search",
            hint=hint,
        )


def read_runs(runs_csv: str | Path, epochs: pd.DataFrame) -> list[AttemptRow]:
    """Read `runs.csv`, its runs in the order of their starts, each with its lane.

    A run whose end nobody wrote down (its process was killed) counts as ended with its last finished epoch.

    Raises:
        ArtefactError: the table is missing, damaged or empty.
    """
    table = read_csv(runs_csv, _RUN_COLUMNS, dtype={"host": str, "device": str, "device_id": str})
    if table.empty:
        raise ArtefactError("nothing ran: the table of runs is empty", where=runs_csv)
    table[["host", "device"]] = table[["host", "device"]].fillna("")
    table["device_id"] = table["device_id"].fillna("cpu")
    table["ready_at"] = table["ready_at"].fillna(table["started_at"])
    ends = _epoch_ends(epochs)
    runs = []
    for values in table[_RUN_COLUMNS].to_dict("records"):
        run = AttemptRow(**values)  # type: ignore[arg-type]
        if pd.isna(run.energy_joules):
            run = replace(run, energy_joules=None)
        if pd.isna(run.ended_at):
            last = ends.get((run.slot, run.first_epoch + run.epochs - 1), run.started_at) if run.epochs else 0.0
            run = replace(run, ended_at=max(run.started_at, last))
        runs.append(run)
    return assign_lanes(runs)


def assign_lanes(runs: Iterable[AttemptRow]) -> list[AttemptRow]:
    """Give each run its device's name, or for CPU workers a lane of its host, and sort by start.

    Processes of one host that overlap get different lanes; each takes the first lane that is free (greedy
    colouring of intervals, which needs the fewest lanes possible).
    """
    runs = sorted(runs, key=lambda run: (run.started_at, run.slot, run.run))
    spans: dict[tuple[str, int, float], float] = {}
    for run in runs:
        if run.device_id == "cpu":
            spans[run.process] = max(run.ended_at, spans.get(run.process, run.ended_at))
    lane_ends: dict[str, list[float]] = {}
    lanes: dict[tuple[str, int, float], str] = {}
    for process, ended_at in sorted(spans.items(), key=lambda item: (item[0][2], item[0])):
        host, _, started_at = process
        ends = lane_ends.setdefault(host, [])
        free = next((lane for lane, end in enumerate(ends) if end <= started_at), len(ends))
        ends[free : free + 1] = [ended_at]
        lanes[process] = f"{host} cpu-{free}"
    return [replace(run, lane=lanes.get(run.process) or _gpu_lane(run)) for run in runs]


def _gpu_lane(run: AttemptRow) -> str:
    # The number that stands for a UUID where NVML is missing is the same on every host.
    return run.device_id if run.device_id.startswith(("GPU-", "MIG-")) else f"{run.host} {run.device_id}"


def process_spans(runs: Iterable[AttemptRow]) -> list[tuple[float, float]]:
    """From when to when each process had its device: from its start to its last run's end."""
    ends: dict[tuple[str, int, float], float] = {}
    for run in runs:
        ends[run.process] = max(run.ended_at, ends.get(run.process, run.ended_at))
    return [(process[2], ended_at) for process, ended_at in ends.items()]


def merge_intervals(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The intervals (start, end) in order, those that overlap or touch made one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def union_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the intervals (start, end) covers."""
    return sum(end - start for start, end in merge_intervals(intervals))


def account_search(
    trials: pd.DataFrame, epochs: pd.DataFrame, runs: Sequence[AttemptRow], max_epochs: int
) -> dict[str, Any]:
    """Account for a search.

    Args:
        trials: `trials.csv`.
        epochs: `epochs.csv`.
        runs: as `read_runs` gives them, at least one.
        max_epochs: epochs of a trial that is never stopped.

    Returns:
        JSON values. All times are seconds. `duration_seconds` goes from the first process's start to the last
        run's end; `occupancy` is the share of it in which a device had at least one trial running (the mean over
        devices is the paper's Table 1, "gpu (%)"); `held_seconds` is how long devices were held by at least one
        process, as a cluster bills it; `speed_up` is the sum of all trials' times by the duration;
        `idle_tail` begins when the first device has nothing left to do; `time` divides the processes' time,
        where `other` is what is between trials and what nobody measured.
    """
    started_at = min(run.process_started_at for run in runs)
    ended_at = max(run.ended_at for run in runs)
    duration = ended_at - started_at
    devices = _devices(runs, started_at, duration)
    last_ends = [device["last_ended_at"] for device in devices]
    trial_seconds = sum(run.ended_at - run.started_at for run in runs)
    occupied = sum(device["occupied_seconds"] for device in devices)
    states = Counter(trials["state"])
    n_epochs, possible = len(epochs), len(trials) * max_epochs
    return {
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": duration,
        "nothing_ran_seconds": duration - union_seconds((run.process_started_at, run.ended_at) for run in runs),
        "trials": {"all": len(trials), **{state.lower(): states[state] for state in ("COMPLETE", "PRUNED", "FAIL")}},
        "epochs": {"trained": n_epochs, "possible": possible, "share": n_epochs / possible},
        "n_devices": len(devices),
        "trial_seconds": trial_seconds,
        "occupied_seconds": occupied,
        "occupancy": _share(occupied, duration * len(devices)),
        "held_seconds": sum(device["held_seconds"] for device in devices),
        "speed_up": _share(trial_seconds, duration),
        "idle_tail": {
            "seconds": ended_at - min(last_ends),
            "device_seconds": sum(ended_at - last for last in last_ends),
        },
        "time": _time(trials, runs),
        "energy": _energy(runs),
        "interrupted": _interrupted(runs, epochs),
        "devices": devices,
        "brackets": _brackets(trials, epochs),
    }


def account_study(search_dir: str | Path, max_epochs: int) -> dict[str, Any]:
    """Account for a search from its frozen tables in `{study}/search`, as `account_search` does.

    Raises:
        ArtefactError: a table is missing or damaged, or nothing ran.
    """
    folder = Path(search_dir)
    trials = read_csv(folder / "trials.csv", _TRIAL_COLUMNS)
    epochs = read_csv(folder / "epochs.csv", _EPOCH_COLUMNS)
    return account_search(trials, epochs, read_runs(folder / "runs.csv", epochs), max_epochs)


def write_accounting(search_dir: str | Path, max_epochs: int, accounting_json: str | Path) -> None:
    """Write what `account_study` returns as JSON."""
    write_json(accounting_json, account_study(search_dir, max_epochs))


def _epoch_ends(epochs: pd.DataFrame) -> dict[tuple[int, int], float]:
    """When each epoch ended, by slot and epoch."""
    keys = zip(epochs["slot"].astype(int), epochs["epoch"].astype(int), strict=True)
    return dict(zip(keys, epochs["ended_at"].astype(float), strict=True))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _devices(runs: Sequence[AttemptRow], started_at: float, duration: float) -> list[dict[str, Any]]:
    rows = []
    for lane in sorted({run.lane for run in runs}):
        own = [run for run in runs if run.lane == lane]
        occupied = union_seconds((run.started_at, run.ended_at) for run in own)
        rows.append(
            {
                "name": lane,
                "host": own[-1].host,
                "device": own[-1].device,
                "processes": len({run.process for run in own}),
                "runs": len(own),
                "epochs": sum(run.epochs for run in own),
                "first_started_at": min(run.started_at for run in own),
                "last_ended_at": max(run.ended_at for run in own),
                "occupied_seconds": occupied,
                "occupancy": _share(occupied, duration),
                "held_seconds": union_seconds(process_spans(own)),
            }
        )
    return rows


def _time(trials: pd.DataFrame, runs: Sequence[AttemptRow]) -> dict[str, float]:
    """How the processes' time divides; `all` is the sum of the other parts."""
    first: dict[tuple[str, int, float], float] = {}
    for run in runs:
        first[run.process] = min(run.started_at, first.get(run.process, run.started_at))
    parts = {"start": sum(started_at - process[2] for process, started_at in first.items())}
    parts |= {part: float(trials[f"{part}_seconds"].sum()) for part in PARTS}
    whole = sum(ended_at - started_at for started_at, ended_at in process_spans(runs))
    return {**parts, "other": max(0.0, whole - sum(parts.values())), "all": whole}


def _energy(runs: Sequence[AttemptRow]) -> dict[str, Any]:
    """Joules of all runs whose GPU measures them, and how many trials these are of.

    Runs side by side on one GPU each count its whole energy, so a GPU's sum is scaled by the time that its runs
    cover over their summed time.
    """
    measured = [(run, run.energy_joules) for run in runs if run.energy_joules is not None]
    joules = 0.0
    for lane in {run.lane for run, _ in measured}:
        own = [(run, energy) for run, energy in measured if run.lane == lane]
        covered = union_seconds((run.started_at, run.ended_at) for run, _ in own)
        summed = sum(run.ended_at - run.started_at for run, _ in own)
        joules += sum(energy for _, energy in own) * _share(covered, summed)
    return {"joules": joules if measured else None, "trials": len({run.slot for run, _ in measured})}


def _interrupted(runs: Sequence[AttemptRow], epochs: pd.DataFrame) -> dict[str, Any]:
    """Runs after which another one took up the same trial, and the time since their last finished epoch.

    Only as far as they wrote it down: a process that is killed outright notes nothing after its last epoch.
    """
    last_run = {run.slot: run.run for run in sorted(runs, key=lambda run: run.run)}
    cut = [run for run in runs if run.run < last_run[run.slot]]
    ends = _epoch_ends(epochs)
    lost = 0.0
    for run in cut:
        saved = ends.get((run.slot, run.first_epoch + run.epochs - 1)) if run.epochs else None
        lost += max(0.0, run.ended_at - (saved or run.started_at))
    return {"runs": len(cut), "trials": len({run.slot for run in cut}), "lost_seconds": lost}


def _brackets(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[dict[str, Any]]:
    """Per bracket its rungs, with the trials that reached each and those that were stopped at it."""
    rows = []
    for bracket in sorted(trials["bracket"].dropna().unique()):
        own = trials[trials["bracket"] == bracket]
        at_rungs = epochs[epochs["slot"].isin(own["slot"]) & epochs["rung"].notna()]
        stopped = own[own["state"] == "PRUNED"].set_index("slot")["epochs"]
        rungs = [
            {
                "rung": int(group["rung"].iloc[0]),
                "epoch": int(group["epoch"].iloc[0]),
                "reached": len(group),
                "stopped": int((group["slot"].map(stopped) == group["epoch"]).sum()),
            }
            for _, group in at_rungs.groupby("rung")
        ]
        rows.append({"bracket": int(bracket), "trials": len(own), "rungs": rungs})
    return rows
