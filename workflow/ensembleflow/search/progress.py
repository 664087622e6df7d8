"""How far a search is: one reading and one estimate for the jobs' line and for `ensembleflow progress`."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from ensembleflow.config import SearchConfig
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.lease import Lease
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.remaining import expected_epochs, makespan, most_at_once, readable_duration

__all__ = ["RunningTrial", "SearchProgress", "progress_line", "read_progress", "readable_metric"]

# A worker that has just ended a trial takes the next one within this time, a job's start included.
_BETWEEN_TRIALS_SECONDS = 60.0
# Durations are those of the last finished trials: reading all records of a large study would take long.
_N_TIMED = 50
_MAX_LISTED = 4


@dataclass(frozen=True)
class RunningTrial:
    """A trial that has begun and not ended.

    Attributes:
        slot: its number.
        epochs: finished ones.
        metric: the search's metric after the last of them; None before the first.
        epoch_seconds: their mean time; None before the first.
        since: when its last epoch ended, or it was taken up; Unix seconds.
    """

    slot: int
    epochs: int
    metric: float | None
    epoch_seconds: float | None
    since: float


@dataclass(frozen=True)
class SearchProgress:
    """A search as it stands.

    Attributes:
        metric: its name.
        max_epochs: of a trial that is never stopped.
        n_trials: all.
        n_finished: those that ended, however.
        n_stopped: stopped early, of those.
        n_failed: failed, of those.
        best: the lowest metric after a trial's last epoch, and whose it is.
        running: that a process trains now.
        interrupted: that a process has left; they go on with the next run.
        seconds_left: until all have ended; None before the first epoch, and when nobody trains.
    """

    metric: str
    max_epochs: int
    n_trials: int
    n_finished: int
    n_stopped: int
    n_failed: int
    best: tuple[float, int] | None
    running: list[RunningTrial]
    interrupted: list[RunningTrial]
    seconds_left: float | None


def read_progress(study: optuna.Study, store_dir: Path, search: SearchConfig, n_trials: int) -> SearchProgress:
    """Read how far a search is; what it reads may be changing meanwhile.

    The time left is what the trials are expected to train still (`expected_epochs`), shared by as many workers as
    trained at once in the last minute, so that it does not matter whether one is just between two trials.

    Args:
        study: the study.
        store_dir: the folder of the trials' folders.
        search: the metric, and the epochs of a trial.
        n_trials: of the whole study.

    Raises:
        ArtefactError: a record is damaged.
    """
    now = time.time()
    # A study whose n_trials was lowered has more.
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number < n_trials]
    finished = [trial for trial in trials if trial.state.is_finished()]
    timed = _records(store_dir, _last_ended(finished, now))
    open_records = _records(store_dir, [trial for trial in trials if trial.state == TrialState.RUNNING])
    held = [Lease(store_dir / f"{model_id(record.slot)}.lease").taken for record in open_records]
    at_work = [record for record, is_held in zip(open_records, held, strict=True) if is_held]
    left = [record for record, is_held in zip(open_records, held, strict=True) if not is_held]
    # After its last epoch, as the library ranks it: a better epoch before leaves no model.
    scored = [(t.intermediate_values[max(t.intermediate_values)], t.number) for t in finished if t.intermediate_values]
    return SearchProgress(
        metric=search.metric,
        max_epochs=search.max_epochs,
        n_trials=n_trials,
        n_finished=len(finished),
        n_stopped=sum(trial.state == TrialState.PRUNED for trial in finished),
        n_failed=sum(trial.state == TrialState.FAIL for trial in finished),
        best=min(scored, default=None),
        running=[_running(record, search.metric) for record in at_work],
        interrupted=[_running(record, search.metric) for record in left],
        seconds_left=_seconds_left(finished, timed, at_work, left, search.max_epochs, n_trials, now),
    )


def _last_ended(finished: list[FrozenTrial], now: float) -> list[FrozenTrial]:
    """Those whose records say how long trials take and who is at work."""
    ended = [(trial.datetime_complete.timestamp(), trial.number) for trial in finished if trial.datetime_complete]
    last = heapq.nlargest(_N_TIMED, ended)
    chosen = {number for _, number in last}
    chosen |= {number for at, number in ended if at > now - _BETWEEN_TRIALS_SECONDS}
    return [trial for trial in finished if trial.number in chosen]


def _records(store_dir: Path, trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
    found = [TrialStore(store_dir / model_id(trial.number)).read_alone() for trial in trials]
    return [record for record in found if record is not None and record.runs]


def _running(record: TrialRecord, metric: str) -> RunningTrial:
    last = record.epochs[-1] if record.epochs else None
    return RunningTrial(
        slot=record.slot,
        epochs=len(record.epochs),
        metric=None if last is None else float(getattr(last, f"valid_{metric}")),
        epoch_seconds=_epochs_seconds(record) / len(record.epochs) if record.epochs else None,
        since=_since(record),
    )


def _since(record: TrialRecord) -> float:
    """When a trial's last epoch ended, or it was taken up; Unix seconds."""
    return max(record.runs[-1].started_at, record.epochs[-1].ended_at if record.epochs else 0.0)


def _epochs_seconds(record: TrialRecord) -> float:
    return sum(epoch.ended_at - epoch.started_at for epoch in record.epochs)


def _seconds_left(
    finished: list[FrozenTrial],
    timed: list[TrialRecord],
    at_work: list[TrialRecord],
    left: list[TrialRecord],
    max_epochs: int,
    n_trials: int,
    now: float,
) -> float | None:
    means = {each.slot: _epochs_seconds(each) / len(each.epochs) for each in [*timed, *at_work, *left] if each.epochs}
    # What a live process has is not over; what another one did ended when it last wrote.
    spans = [(each.runs[-1].started_at, float("inf")) for each in at_work]
    spans += [(each.runs[-1].started_at, each.runs[-1].ended_at) for each in timed]
    n_workers = most_at_once(spans, now - _BETWEEN_TRIALS_SECONDS)
    n_waiting = n_trials - len(finished) - len(at_work)
    if not means or not n_workers or (n_waiting <= 0 and not at_work):
        return None
    mean = sum(means.values()) / len(means)
    open_epochs = [len(each.epochs) for each in [*at_work, *left]]
    epochs_left = expected_epochs([len(each.intermediate_values) for each in finished], open_epochs, max_epochs)
    running = [
        max(0.0, epochs_left[len(each.epochs)] * means.get(each.slot, mean) - (now - _since(each))) for each in at_work
    ]
    return makespan(running, n_workers, max(n_waiting, 0), epochs_left[0] * mean + _beside_epochs(timed))


def _beside_epochs(timed: list[TrialRecord]) -> float:
    """Seconds of a trial that no epoch took: its share of a process's start, building, saving."""
    if not timed:
        return 0.0
    runs = [run for record in timed for run in record.runs]
    starts = {(run.host, run.process_id): max(0.0, run.ready_at - run.process_started_at) for run in runs}
    trained = sum(run.ended_at - run.started_at for run in runs) - sum(map(_epochs_seconds, timed))
    return (sum(starts.values()) + max(0.0, trained)) / len(timed)


def progress_line(progress: SearchProgress) -> str:
    """Trials done, stopped early, failed and running, the best so far, and about how long the rest takes."""
    parts = [f"search {progress.n_finished}/{progress.n_trials} trials"]
    if progress.n_stopped:
        parts.append(f"{progress.n_stopped} stopped early")
    if progress.n_failed:
        parts.append(f"{progress.n_failed} failed")
    if progress.running:
        parts.append(f"{len(progress.running)} running{_epochs_of(progress)}")
    if progress.best is not None:
        value, slot = progress.best
        parts.append(f"best {progress.metric} {readable_metric(value, progress.metric)} ({model_id(slot)})")
    if progress.seconds_left is not None:
        parts.append(f"about {readable_duration(progress.seconds_left)} left")
    return ", ".join(parts)


def _epochs_of(progress: SearchProgress) -> str:
    """The epochs that the running trials are in, where they are few."""
    if len(progress.running) > _MAX_LISTED:
        return ""
    epochs = [f"{min(trial.epochs + 1, progress.max_epochs)}" for trial in progress.running]
    return f" (in epoch {' and '.join(epochs)} of {progress.max_epochs})"


def readable_metric(value: float, metric: str) -> str:
    """A cross-entropy as it is, an error in per cent."""
    return f"{value:.4f}" if metric == "cross_entropy" else f"{100 * value:.2f} %"
