"""A search in virtual time: jobs, devices, rungs, generations and what all of them wait for."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import simpy

from ensembleflow.config import SearchConfig
from ensembleflow.planning.search_plan import generation_size, search_jobs
from ensembleflow.search.simulation.limits import Limits, Server, sampler_seconds
from ensembleflow.search.simulation.rungs import HyperbandRungs
from ensembleflow.search.simulation.trials import TrialSource

__all__ = ["LOSSES", "Simulation", "simulate"]

# What keeps devices from training, as `Simulation.limit` names it.
LOSSES = ("storage", "scheduler", "generations", "starts", "sampler", "tail")
# A loss below this share of all devices' time limits nothing.
_LIMIT_SHARE = 0.1

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Simulation:
    """What a simulated search took. All times are virtual seconds.

    Attributes:
        n_devices: that it had.
        n_trials: of the study.
        duration_seconds: from the first process's start to the last trial's end, as `account_search` counts.
        trial_seconds: sum of all trials' times.
        occupied_seconds: sum over devices of the time in which at least one trial ran.
        tail_seconds: from when the first device had nothing left, to the end.
        tail_device_seconds: that all devices together spent without work in the tail.
        job_seconds: sum of the time that jobs held a device, as a cluster bills it.
        lost_seconds: device-seconds by what they were lost to (`LOSSES`).
        storage_load: share of the duration in which the storage was writing.
        epochs: that each slot trained.
        stopped: the slots that a rung stopped.
    """

    n_devices: int
    n_trials: int
    duration_seconds: float
    trial_seconds: float
    occupied_seconds: float
    tail_seconds: float
    tail_device_seconds: float
    job_seconds: float
    lost_seconds: dict[str, float]
    storage_load: float
    epochs: tuple[int, ...]
    stopped: frozenset[int]

    @property
    def occupancy(self) -> float:
        """Mean share of the duration in which a device has a trial running (the paper's Table 1, "gpu (%)")."""
        return self.occupied_seconds / (self.duration_seconds * self.n_devices) if self.duration_seconds else 0.0

    @property
    def speed_up(self) -> float:
        """The trials' summed time by the duration."""
        return self.trial_seconds / self.duration_seconds if self.duration_seconds else 0.0

    @property
    def limit(self) -> str:
        """What most device time is lost to, or "none" where that is less than a tenth of it."""
        worst = max(LOSSES, key=lambda name: self.lost_seconds[name])
        bound = _LIMIT_SHARE * self.duration_seconds * self.n_devices
        return worst if self.lost_seconds[worst] > bound else "none"


def simulate(
    search: SearchConfig,
    source: TrialSource,
    n_devices: int,
    limits: Limits,
    *,
    study_name: str = "simulated",
    recorded_algorithm: str | None = None,
    concurrent_trials: int = 1,
) -> Simulation:
    """Run a search's jobs on `n_devices` equal devices, each taking the next job when it is free.

    Deterministic: the same arguments give the same result.

    Args:
        search: algorithm, trials, trials per job, epochs, generations.
        source: gives each slot its trial.
        n_devices: that run one job at a time each.
        limits: what the jobs wait for.
        study_name: of Optuna's study, on which the brackets depend.
        recorded_algorithm: whose proposals' time is in the recorded starts and pauses between trials already.
        concurrent_trials: that a job trains side by side; `source` must have been recorded alike.
    """
    return _Search(search, source, n_devices, limits, study_name, recorded_algorithm, concurrent_trials).run()


@dataclass
class _Device:
    running: int = 0
    running_since: float = 0.0
    occupied: float = 0.0
    held: float = 0.0
    last_end: float = 0.0
    waits: list[tuple[float, float, bool]] = field(default_factory=list)  # start, end, and whether a job came


class _Search:
    def __init__(
        self,
        search: SearchConfig,
        source: TrialSource,
        n_devices: int,
        limits: Limits,
        study_name: str,
        recorded_algorithm: str | None,
        concurrent_trials: int,
    ) -> None:
        self.search, self.source, self.limits = search, source, limits
        self.concurrent_trials = concurrent_trials
        self.recorded_algorithm = recorded_algorithm
        self.env = simpy.Environment()
        self.storage = Server(limits.storage_seconds)
        self.rungs: HyperbandRungs | None = None
        if search.algorithm in ("hyperband", "bohb"):
            self.rungs = HyperbandRungs(study_name, search.min_epochs, search.max_epochs, search.reduction_factor)
        self.jobs = search_jobs(search)
        self.generation_size = generation_size(search) or search.n_trials
        self.queue: simpy.Store = simpy.Store(self.env)
        self.permits = simpy.Container(self.env, init=limits.max_jobs or len(self.jobs))
        self.unfinished = [0] * (self._generation(self.jobs[-1]) + 1)
        for slots in self.jobs:
            self.unfinished[self._generation(slots)] += 1
        self.generation_ends = [self.env.event() for _ in self.unfinished]
        self.devices = [_Device() for _ in range(n_devices)]
        self.epochs = [0] * search.n_trials
        self.stopped: set[int] = set()
        self.lost = dict.fromkeys(LOSSES, 0.0)
        self.barriers: list[tuple[float, float]] = []
        self.n_started = self.n_finished = 0
        self.trial_seconds = 0.0
        self.first_start: float | None = None
        self.last_submission = 0.0

    def _generation(self, slots: list[int]) -> int:
        return slots[0] // self.generation_size

    def run(self) -> Simulation:
        self.env.process(self._submit())
        for device in self.devices:
            self.env.process(self._work(device))
        self.env.run(self.generation_ends[-1])
        end = max(device.last_end for device in self.devices)
        start = self.first_start or 0.0
        duration = end - start
        self._account_for_waits(start, end)
        last_ends = [max(device.last_end, start) for device in self.devices]
        return Simulation(
            n_devices=len(self.devices),
            n_trials=self.search.n_trials,
            duration_seconds=duration,
            trial_seconds=self.trial_seconds,
            occupied_seconds=sum(device.occupied for device in self.devices),
            tail_seconds=end - min(last_ends),
            tail_device_seconds=sum(end - last for last in last_ends),
            job_seconds=sum(device.held for device in self.devices),
            lost_seconds=self.lost,
            storage_load=self.storage.busy_seconds / duration if duration else 0.0,
            epochs=tuple(self.epochs),
            stopped=frozenset(self.stopped),
        )

    def _submit(self) -> Events:
        """Snakemake: jobs in the order of their slots, at its own rate, a generation after the one before it."""
        for slots in self.jobs:
            generation = self._generation(slots)
            if generation and not self.generation_ends[generation - 1].processed:
                blocked_at = self.env.now
                yield self.generation_ends[generation - 1]
                self.barriers.append((blocked_at, self.env.now))
            yield self.permits.get(1)
            yield self.env.timeout(1 / self.limits.jobs_per_second)
            self.last_submission = self.env.now
            self.queue.put(slots)

    def _notice(self, slots: list[int]) -> Events:
        """Snakemake learns that a job has ended."""
        yield self.env.timeout(self.limits.notice_seconds)
        self.permits.put(1)
        generation = self._generation(slots)
        self.unfinished[generation] -= 1
        if not self.unfinished[generation]:
            self.generation_ends[generation].succeed()

    def _work(self, device: _Device) -> Events:
        """One device: a job after the other."""
        while True:
            free_at = self.env.now
            device.waits.append((free_at, float("inf"), False))
            slots = yield self.queue.get()
            device.waits[-1] = (free_at, self.env.now, True)
            taken_at = self.env.now
            yield self.env.timeout(self.limits.launch_seconds)
            if self.first_start is None:
                self.first_start = self.env.now
            launched_at = self.env.now
            opening = self.limits.open_seconds_per_trial * self.n_started
            yield self.env.timeout(self.limits.start_seconds + opening)
            self.lost["starts"] += self.env.now - max(taken_at, self.first_start)
            rest = list(slots)
            n_lanes = min(self.concurrent_trials, len(rest))
            if n_lanes == 1:
                yield from self._train(rest, device)
            else:
                yield self.env.all_of([self.env.process(self._train(rest, device)) for _ in range(n_lanes)])
            device.held += self.env.now - launched_at
            device.last_end = self.env.now
            self.env.process(self._notice(slots))

    def _train(self, rest: list[int], device: _Device) -> Events:
        """One process of a job: a trial after the other, from the slots that are left."""
        first = True
        while rest:
            slot = rest.pop(0)
            if not first:
                yield self.env.timeout(self.limits.between_seconds)
                self.lost["starts"] += self.limits.between_seconds
            first = False
            sampling = self._sampling_seconds(slot)
            yield self.env.timeout(sampling)
            self.lost["sampler"] += sampling
            started_at = self.env.now
            if not device.running:
                device.running_since = started_at
            device.running += 1
            yield from self._trial(slot)
            device.running -= 1
            if not device.running:
                device.occupied += self.env.now - device.running_since
            self.trial_seconds += self.env.now - started_at

    def _trial(self, slot: int) -> Events:
        trial = self.source.trial(slot)
        self.n_started += 1
        yield self.env.timeout(trial.before_seconds + self._storage_wait(self.limits.writes_per_trial))
        bracket = self.rungs.bracket(slot) if self.rungs else 0
        for epoch, seconds in enumerate(trial.epoch_seconds, start=1):
            yield self.env.timeout(seconds)
            rung = self.rungs.rung(bracket, epoch) if self.rungs else None
            wait = self._storage_wait(self.limits.writes_per_epoch + (rung is not None))
            if wait:
                yield self.env.timeout(wait)
            self.epochs[slot] = epoch
            value = trial.values[epoch - 1] * trial.factor
            if self.rungs and rung is not None and self.rungs.stops(bracket, rung, value):
                self.stopped.add(slot)
                break
        yield self.env.timeout(trial.after_seconds)
        self.n_finished += 1

    def _sampling_seconds(self, slot: int) -> float:
        """What proposing takes beyond the time that is in the recorded starts and pauses already."""
        seconds = sampler_seconds(self.search.algorithm, self.n_finished)
        if self.recorded_algorithm == self.search.algorithm:
            seconds -= sampler_seconds(self.search.algorithm, min(slot, self.source.n_recorded))
        return max(0.0, seconds)

    def _storage_wait(self, n_writes: int) -> float:
        wait = self.storage.wait_seconds(self.env.now, n_writes)
        self.lost["storage"] += wait
        return wait

    def _account_for_waits(self, start: float, end: float) -> None:
        """Say for what the devices without a job waited: a generation, the scheduler, or the end."""
        for device in self.devices:
            for free_at, until, came in device.waits:
                begin, stop = max(free_at, start), min(until, end)
                if stop <= begin:
                    continue
                tail = 0.0 if came else max(0.0, stop - max(begin, self.last_submission))
                generations = _overlap((begin, stop), self.barriers)
                self.lost["tail"] += tail
                self.lost["generations"] += generations
                self.lost["scheduler"] += stop - begin - tail - generations


def _overlap(interval: tuple[float, float], others: Iterable[tuple[float, float]]) -> float:
    return sum(max(0.0, min(interval[1], end) - max(interval[0], start)) for start, end in others)
