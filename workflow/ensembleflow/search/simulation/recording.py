"""What a simulation replays: the trials of a finished search, or trials drawn from stated distributions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import pandas as pd

from ensembleflow.io import read_csv, read_json, snakemake_command
from ensembleflow.search.accounting import AttemptRow, merge_intervals, process_spans, read_runs, require_tables
from ensembleflow.search.simulation.limits import Limits

__all__ = [
    "RecordedTrial",
    "Recording",
    "assume_recording",
    "optuna_study",
    "read_recording",
    "recorded_limits",
]


@dataclass(frozen=True)
class RecordedTrial:
    """One trial as it went, without the waits that a kill brought.

    Attributes:
        slot: its number.
        bracket: Hyperband's, or None.
        before_seconds: from its start to its first epoch (building, tracing). A model-based algorithm proposes its
            hyperparameters before that, while the slot is claimed.
        epoch_seconds: from each epoch's start to the next one's; the last one's to its own end.
        values: the metric to minimise after each epoch.
        after_seconds: from its last epoch's end to its own (keeping the model, finishing it in the study).
        failed: whether it ended by itself after these epochs.
    """

    slot: int
    bracket: int | None
    before_seconds: float
    epoch_seconds: tuple[float, ...]
    values: tuple[float, ...]
    after_seconds: float
    failed: bool = False


@dataclass(frozen=True)
class Recording:
    """The trials of a search and what lay between them; times in seconds, all means but for the launch.

    Attributes:
        trials: by slot.
        start_seconds: from a process's start to its first trial's (importing TensorFlow, the first proposal).
        between_seconds: from one trial's end to the next one's start in the same process (the next proposal).
        launch_seconds: median time from a job's last trial to the next job's process on the same device (the
            scheduler and what it starts); None where no device had two jobs.
        origin: where the trials come from, in words.
    """

    trials: tuple[RecordedTrial, ...]
    start_seconds: float
    between_seconds: float
    launch_seconds: float | None
    origin: str


def read_recording(search_dir: str | Path, metric: str) -> Recording:
    """Read a finished search from `{study}/search`.

    Args:
        search_dir: the folder of `trials.csv`, `epochs.csv` and `runs.csv`.
        metric: the metric that the search minimises.

    Raises:
        SearchError: there is no finished search in the folder.
        ArtefactError: a table is damaged.
    """
    folder = Path(search_dir)
    require_tables(
        folder,
        "plan from",
        f"run a small one first ({snakemake_command('search', near=folder)}), name another study's folder with "
        "--study-dir, or state how long an epoch takes with --epoch-seconds",
    )
    trials = read_csv(folder / "trials.csv", ["slot", "state", "bracket"])
    value = f"valid_{metric}"
    epochs = read_csv(folder / "epochs.csv", ["slot", "epoch", "started_at", "ended_at", value])
    runs = read_runs(folder / "runs.csv", epochs)
    epochs_of = dict(list(epochs.sort_values("epoch").groupby("slot")))
    runs_of: dict[int, list[AttemptRow]] = {}
    for run in sorted(runs, key=lambda run: run.run):
        runs_of.setdefault(run.slot, []).append(run)
    recorded = [
        _recorded_trial(
            slot,
            state == "FAIL",
            None if pd.isna(bracket) else int(bracket),
            epochs_of.get(slot, epochs.iloc[:0]),
            value,
            runs_of[slot],
        )
        for slot, state, bracket in zip(trials["slot"].astype(int), trials["state"], trials["bracket"], strict=True)
        if slot in runs_of
    ]
    start, between, launch = _overheads(runs)
    return Recording(tuple(recorded), start, between, launch, f"{len(recorded)} recorded trials of {folder}")


def assume_recording(
    epoch_seconds: float, spread: float, max_epochs: int, start_seconds: float, n_trials: int = 1000, seed: int = 0
) -> Recording:
    """Trials for a plan made before anything was recorded.

    A trial's epoch time is drawn from a log-normal distribution with mean `epoch_seconds` and coefficient of
    variation `spread`; building takes it one epoch's time more. Its metric after epoch e is q / sqrt(e), q
    log-normal with a standard deviation of the logarithm of 0.3 a trial, and of 0.1 an epoch.

    Args:
        epoch_seconds: mean seconds per epoch, over all trials.
        spread: standard deviation by mean of the trials' epoch times, 0 or more.
        max_epochs: epochs of a trial that is never stopped.
        start_seconds: from a process's start to its first trial's.
        n_trials: trials to draw.
        seed: of the draws.
    """
    sigma = math.sqrt(math.log1p(spread**2))
    draw = random.Random(seed)
    trials = []
    for slot in range(n_trials):
        seconds = epoch_seconds * math.exp(draw.gauss(-(sigma**2) / 2, sigma))
        quality = math.exp(draw.gauss(0.0, 0.3))
        values = [quality / math.sqrt(epoch) * math.exp(draw.gauss(0.0, 0.1)) for epoch in range(1, max_epochs + 1)]
        trials.append(RecordedTrial(slot, None, seconds, (seconds,) * max_epochs, tuple(values), 0.0))
    origin = f"assumed trials: {epoch_seconds:g} s per epoch on average, spread {spread:g}"
    return Recording(tuple(trials), start_seconds, 0.0, None, origin)


def recorded_limits(recording: Recording) -> Limits:
    """The measured defaults, but for what was recorded of starts, pauses and launches."""
    limits = replace(Limits(), start_seconds=recording.start_seconds, between_seconds=recording.between_seconds)
    if recording.launch_seconds is None:
        return limits
    return replace(limits, launch_seconds=recording.launch_seconds)


def optuna_study(study_dir: str | Path, otherwise: str) -> str:
    """The name of a study's study in Optuna, on which the brackets depend, as a job's file has it."""
    job = Path(study_dir, "search", "trials", "job-0.json")
    return str(read_json(job, ["optuna_study"])["optuna_study"]) if job.exists() else otherwise


def _recorded_trial(
    slot: int, failed: bool, bracket: int | None, epochs: pd.DataFrame, value: str, runs: Sequence[AttemptRow]
) -> RecordedTrial:
    if epochs.empty:
        last = runs[-1]
        return RecordedTrial(slot, bracket, last.ended_at - last.started_at, (), (), 0.0, failed)
    starts = epochs["started_at"].astype(float).tolist()
    ends = epochs["ended_at"].astype(float).tolist()
    # A run's first epoch follows on the work that made it ready, not on the epoch before it.
    first_of_run = {run.first_epoch for run in runs if run.epochs}
    seconds = [
        end - start if following is None or number + 1 in first_of_run else following - start
        for number, (start, end, following) in enumerate(zip(starts, ends, [*starts[1:], None], strict=True), start=1)
    ]
    first = next((run for run in runs if run.epochs), runs[0])
    return RecordedTrial(
        slot,
        bracket,
        max(0.0, starts[0] - first.started_at),
        tuple(seconds),
        tuple(epochs[value].astype(float).tolist()),
        max(0.0, runs[-1].ended_at - max(ends[-1], runs[-1].started_at)),
        failed,
    )


def _overheads(runs: Sequence[AttemptRow]) -> tuple[float, float, float | None]:
    """Means of a process's start and of the pause between two trials, median of the pause between two jobs."""
    by_process: dict[tuple[str, int, float], list[AttemptRow]] = {}
    for run in runs:
        by_process.setdefault(run.process, []).append(run)
    starts = [own[0].started_at - process[2] for process, own in by_process.items()]
    between = [
        max(0.0, after.started_at - before.ended_at) for own in by_process.values() for before, after in pairwise(own)
    ]
    launches = [
        after[0] - before[1]
        for lane in {run.lane for run in runs}
        for before, after in pairwise(merge_intervals(process_spans(run for run in runs if run.lane == lane)))
    ]
    return fmean(starts), fmean(between) if between else 0.0, median(launches) if launches else None
