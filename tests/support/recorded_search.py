"""A finished search made without training: a plain event loop, with Optuna's own pruner, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from ensembleflow.search.optuna_internals import hyperband_bracket, should_stop
from ensembleflow.search.trial import rung_of

ORIGIN = 1_700_000_000.0
PARTS = ("build", "input", "step", "valid", "checkpoint", "storage")


@dataclass(frozen=True)
class Trial:
    before: float
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    after: float


def some_trials(n_trials: int, max_epochs: int, seed: int = 0) -> list[Trial]:
    draw = random.Random(seed)
    trials = []
    for _ in range(n_trials):
        seconds, quality = draw.uniform(0.5, 4), draw.uniform(0.1, 0.6)
        values = [quality / epoch**0.5 * draw.uniform(0.8, 1.2) for epoch in range(1, max_epochs + 1)]
        epochs = [seconds * draw.uniform(0.9, 1.1) for _ in range(max_epochs)]
        trials.append(Trial(draw.uniform(0.5, 3), tuple(epochs), tuple(values), draw.uniform(0, 0.3)))
    return trials


@dataclass
class Search:
    """What `drive` found: rows of the three tables."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    duration: float = 0.0

    @property
    def n_epochs(self) -> tuple[int, ...]:
        return tuple(row["epochs"] for row in sorted(self.trials, key=lambda row: row["slot"]))

    def write(self, search_dir: Path) -> Path:
        search_dir.mkdir(parents=True, exist_ok=True)
        for name, rows in (("trials", self.trials), ("epochs", self.epochs), ("runs", self.runs)):
            pd.DataFrame(sorted(rows, key=lambda row: row["slot"])).to_csv(search_dir / f"{name}.csv", index=False)
        return search_dir


def drive(
    trials: Sequence[Trial],
    n_workers: int,
    *,
    hyperband: bool = True,
    min_epochs: int = 1,
    reduction_factor: int = 3,
    trials_per_job: int = 1,
    launch: float = 0.0,
    start: float = 0.0,
    between: float = 0.0,
    study_name: str = "simulated",
) -> Search:
    """Each worker takes the next job when it is free; the pruner is asked at the end of each epoch."""
    max_epochs = len(trials[0].epochs)
    pruner = (
        optuna.pruners.HyperbandPruner(min_epochs, max_epochs, reduction_factor)
        if hyperband
        else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(study_name=study_name, pruner=pruner)
    asked = [study.ask() for _ in trials]
    jobs = iter([range(i, min(i + trials_per_job, len(trials))) for i in range(0, len(trials), trials_per_job)])
    found = Search()

    def bracket_of(slot: int) -> int | None:
        if not hyperband:
            return None
        return hyperband_bracket(study, study.get_trials(deepcopy=False)[slot])

    def work(worker: int) -> Iterator[float]:
        now = 0.0
        for process, slots in enumerate(jobs, start=1):
            now += launch
            process_started = now
            now += start
            yield now
            for slot in slots:
                if slot != slots[0]:
                    now += between
                began, trial, bracket, stopped, done = now, trials[slot], bracket_of(slot), False, 0
                now += trial.before
                for epoch, (seconds, value) in enumerate(zip(trial.epochs, trial.values, strict=True), start=1):
                    epoch_started = now
                    now += seconds
                    yield now
                    done, rung = epoch, rung_of(epoch, bracket, min_epochs, reduction_factor)
                    found.epochs.append(
                        {
                            "slot": slot,
                            "bracket": bracket,
                            "epoch": epoch,
                            "rung": rung,
                            "started_at": ORIGIN + epoch_started,
                            "ended_at": ORIGIN + now,
                            "valid_error": value,
                            "valid_cross_entropy": value,
                        }
                    )
                    asked[slot].report(value, epoch)
                    if epoch < max_epochs and should_stop(study, slot, rung):
                        stopped = True
                        break
                now += trial.after
                state = "PRUNED" if stopped else "COMPLETE"
                study.tell(slot, None if stopped else value, state=optuna.trial.TrialState[state])
                found.trials.append(
                    {"slot": slot, "state": state, "bracket": bracket, "epochs": done}
                    | {f"{part}_seconds": 0.0 for part in PARTS}
                )
                found.runs.append(
                    {
                        "slot": slot,
                        "run": 0,
                        "host": "node",
                        "device": "a CPU",
                        "device_id": "cpu",
                        "process_id": 1000 * worker + process,
                        "process_started_at": ORIGIN + process_started,
                        "ready_at": ORIGIN + process_started + start,
                        "started_at": ORIGIN + began,
                        "ended_at": ORIGIN + now,
                        "first_epoch": 1,
                        "epochs": done,
                        "energy_joules": None,
                    }
                )
                found.duration = max(found.duration, now - launch)
            yield now

    workers = [work(worker) for worker in range(n_workers)]
    events = [(0.0, worker) for worker in range(n_workers)]
    while events:
        _, worker = heapq.heappop(events)
        until = next(workers[worker], None)
        if until is not None:
            heapq.heappush(events, (until, worker))
    return found
