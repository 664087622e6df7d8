"""A bench that only simulates the ensemble: for planning on devices that are not at hand."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Objective, Score
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement
from ensembleflow.inference.request import Limits

__all__ = ["SIGMAS_TO_P99", "Calibration", "SimulatedBench"]

SIGMAS_TO_P99 = 2.326
"""From the median of a normal distribution to its 99th percentile, in standard deviations."""

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Calibration:
    """What an ensemble loses, or gains, beside its members' own calls.

    Attributes:
        batch_overhead_seconds: that a process waits around each batch of the dispatcher: messages, copies, averaging.
        device_contention: a device on which k processes compute does k^-x times the work of one alone. 0 is a fair
            share without loss; negative where one process does not fill it (-1: they do not notice each other).
        machine_contention: likewise, each of j devices at work is j^-x times as fast as alone.
        jitter: standard deviation of the logarithm of a request's latency; its median is what is simulated.
        n_benches: real benches that it comes from; 0 where it is assumed.
        median_relative_error: between these and their simulation.
    """

    batch_overhead_seconds: float = 0.0
    device_contention: float = 0.0
    machine_contention: float = 0.0
    jitter: float = 0.0
    n_benches: int = 0
    median_relative_error: float = math.nan


@dataclass(frozen=True)
class SimulatedBench:
    """Scores an allocation without running it; the same allocation always has the same score.

    It does what the dispatcher does with one client. Requests are cut into batches, of which a few are at work at a
    time. A process predicts a whole batch, call after call of its batch size; where its member has replicas, they take
    calls from it in turn as they are free. Processes that compute at once share their device. A batch ends when every
    member has answered all of it.

    Args:
        devices: that allocations may name; `speed` scales the profiles of the device's kind.
        profiles: of all members on the devices' kinds.
        calibration: what is lost besides.
        objective: of the scores.
        bench_images: images of the one request whose images/s are simulated.
        request_images: images of a request whose latency is simulated.
        latency_requests: 0 leaves latency out; of one client's requests each takes as long as the next.
        limits: the dispatcher's.
    """

    devices: Sequence[Device]
    profiles: ProfileTable
    calibration: Calibration = Calibration()
    objective: Objective = "throughput"
    bench_images: int = 2000
    request_images: int = 1
    latency_requests: int = 0
    limits: Limits = field(default_factory=Limits)

    def __call__(self, allocation: Allocation) -> Score:
        """Simulate the benches' requests.

        Raises:
            AllocationError: a placement has no profile.
        """
        by_name = {device.name: device for device in self.devices}
        used_mb = self.profiles.used_mb(allocation, by_name)
        full = [name for name, mb in used_mb.items() if mb > by_name[name].memory_mb]
        if full:
            return Score(self.objective, failure=f"out of memory on {', '.join(full)}")
        speed = self.bench_images / self._seconds(allocation, self.bench_images)
        if not self.latency_requests:
            return Score(self.objective, (speed,))
        p50_ms = self._seconds(allocation, self.request_images) * 1000
        p99_ms = p50_ms * math.exp(SIGMAS_TO_P99 * self.calibration.jitter)
        return Score(self.objective, (speed,), (p50_ms,), (p99_ms,))

    def _seconds(self, allocation: Allocation, n_images: int) -> float:
        env = simpy.Environment()
        env.run(env.process(_SimulatedRequest(env, self, allocation).client(n_images)))
        return float(env.now)


class _SimulatedRequest:
    """A request of the only client, and the dispatcher that serves it."""

    def __init__(self, env: simpy.Environment, bench: SimulatedBench, allocation: Allocation) -> None:
        self._env = env
        self._bench = bench
        self._machine = _Machine(env, bench.calibration)
        self._devices = {device.name: device for device in bench.devices}
        self._full = max(each.batch_size for each in allocation)
        self._slots = simpy.Container(env, bench.limits.batches_at_work, init=bench.limits.batches_at_work)
        self._queues: list[_Queue] = []
        for _, group in itertools.groupby(allocation, lambda each: each.model):
            replicas = list(group)
            self._queues.append(_Queue(env))
            for each in replicas:
                env.process(self._work(each, self._queues[-1], alone=len(replicas) == 1))

    def client(self, left: int) -> Events:
        """Send a request of so many images, and wait for the answer."""
        limits = self._bench.limits
        batches = []
        while left:
            # A batch that is not full begins only when no other is at work.
            wanted = limits.batches_at_work if left < self._full else 1
            yield self._slots.get(wanted)
            if wanted > 1:
                self._slots.put(wanted - 1)
            n_images = min(left, limits.max_batch_images)
            left -= n_images
            batches.append(self._env.process(self._batch(n_images)))
        yield self._env.all_of(batches)

    def _batch(self, n_images: int) -> Events:
        yield self._env.all_of([queue.put(n_images) for queue in self._queues])
        yield self._slots.put(1)

    def _work(self, placement: Placement, queue: _Queue, alone: bool) -> Events:
        """One process: a batch after the other, or a call after the other where it has replicas."""
        overhead_seconds = self._bench.calibration.batch_overhead_seconds
        while True:
            batch, n_images = yield from queue.take(None if alone else placement.batch_size)
            for first in range(0, n_images, placement.batch_size):
                n_called = min(placement.batch_size, n_images - first)
                seconds = self._bench.profiles.call_seconds(placement, self._devices[placement.device], n_called)
                yield self._machine.compute(placement.device, seconds)
            if overhead_seconds:
                yield self._env.timeout(overhead_seconds)
            batch.answered(n_images)


@dataclass
class _Batch:
    """A batch as one member sees it: images that no process has taken, and that none has answered."""

    untaken: int
    unanswered: int
    done: simpy.Event

    def answered(self, n_images: int) -> None:
        self.unanswered -= n_images
        if not self.unanswered:
            self.done.succeed()


class _Queue:
    """The batches that a member has still to predict; its replicas share them."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._batches: deque[_Batch] = deque()
        self._idle: deque[simpy.Event] = deque()

    def put(self, n_images: int) -> simpy.Event:
        """Add a batch; the event is its end."""
        batch = _Batch(n_images, n_images, self._env.event())
        self._batches.append(batch)
        while self._idle:
            self._idle.popleft().succeed()
        return batch.done

    def take(self, most_images: int | None) -> Generator[simpy.Event, Any, tuple[_Batch, int]]:
        """Wait for a batch, and take the next images of it, at most so many (None: all)."""
        while not self._batches:
            self._idle.append(self._env.event())
            yield self._idle[-1]
        batch = self._batches[0]
        n_images = batch.untaken if most_images is None else min(most_images, batch.untaken)
        batch.untaken -= n_images
        if not batch.untaken:
            self._batches.popleft()
        return batch, n_images


@dataclass
class _Shared:
    """A device at work: each of its calls advances by the same `progress`, and ends when that has reached its end."""

    progress: float = 0.0
    calls: list[tuple[float, int, simpy.Event]] = field(default_factory=list)


class _Machine:
    """Devices whose calls share their time evenly (processor sharing).

    A SimPy resource serves one call after another; here all advance at once, so that every arrival and every end
    changes when the others end. One timer waits for the next end of any call; those set before a change are void.
    """

    def __init__(self, env: simpy.Environment, calibration: Calibration) -> None:
        self._env = env
        self._calibration = calibration
        self._busy: dict[str, _Shared] = {}
        self._n_calls = 0
        self._changed_at = 0.0
        self._timer = 0

    def compute(self, device: str, seconds: float) -> simpy.Event:
        """Give a device so much work; the event is its end."""
        self._advance()
        done = self._env.event()
        shared = self._busy.setdefault(device, _Shared())
        self._n_calls += 1
        heapq.heappush(shared.calls, (shared.progress + seconds, self._n_calls, done))
        self._wait_for_next_end()
        return done

    def _rate(self, shared: _Shared) -> float:
        of_machine = len(self._busy) ** -self._calibration.machine_contention
        return float(of_machine * len(shared.calls) ** (-1.0 - self._calibration.device_contention))

    def _advance(self) -> None:
        elapsed = self._env.now - self._changed_at
        self._changed_at = self._env.now
        if elapsed:
            for shared in self._busy.values():
                shared.progress += elapsed * self._rate(shared)

    def _wait_for_next_end(self) -> None:
        self._timer += 1
        if self._busy:
            wait, name = min(
                ((each.calls[0][0] - each.progress) / self._rate(each), name) for name, each in self._busy.items()
            )
            number = self._timer
            timeout = self._env.timeout(max(0.0, wait))
            timeout.callbacks.append(lambda _event: self._end_calls(number, name))

    def _end_calls(self, number: int, device: str) -> None:
        if number != self._timer:
            return
        self._advance()
        shared = self._busy[device]
        # The call waited for has ended, whatever rounding says.
        shared.progress = max(shared.progress, shared.calls[0][0])
        while shared.calls and shared.calls[0][0] <= shared.progress:
            heapq.heappop(shared.calls)[2].succeed()
        if not shared.calls:
            del self._busy[device]
        self._wait_for_next_end()
