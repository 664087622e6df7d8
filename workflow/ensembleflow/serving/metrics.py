"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ensembleflow.inference import Observer, WorkerStatus
from ensembleflow.serving.live_shares import LiveShares

__all__ = ["Metrics", "Served", "Timed"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_INFERENCE = ("/infer", "/classify")
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass
class Timed:
    """How often, and how long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds


@dataclass
class Served:
    """What a model has answered since the start.

    Attributes:
        answered: requests with a whole answer.
        refused: requests without one.
        batches: in which images were predicted.
        n_images: that were answered.
        last_answer: when, in seconds since 1970; 0 if never.
    """

    answered: Timed = field(default_factory=Timed)
    refused: Timed = field(default_factory=Timed)
    batches: Timed = field(default_factory=Timed)
    n_images: int = 0
    last_answer: float = 0.0


class Metrics(Observer):
    """Counters and histograms in a registry of their own; the dispatcher calls it as its observer.

    Args:
        status: the members' processes.
        queued_images: how many images wait.
        ready: whether the server is ready.

    Attributes:
        served: what Triton's clients ask for beside them.
    """

    def __init__(
        self,
        status: Callable[[], Sequence[WorkerStatus]],
        queued_images: Callable[[], int],
        ready: Callable[[], bool],
    ) -> None:
        self.served = Served()
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ensembleflow_requests", "HTTP requests answered", ["route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "ensembleflow_request_seconds",
            "from a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter("ensembleflow_images", "images answered", registry=registry)
        self._batch_images = Histogram(
            "ensembleflow_batch_images", "images of a batch", buckets=_IMAGES, registry=registry
        )
        self._batch_requests = Histogram(
            "ensembleflow_batch_requests", "requests of a batch", buckets=_IMAGES, registry=registry
        )
        self._batch_seconds = Histogram(
            "ensembleflow_batch_seconds",
            "from a batch's start to its last member's answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._member_seconds = Histogram(
            "ensembleflow_member_seconds",
            "a member's work at images of one batch",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "ensembleflow_member_failures", "ends of members' processes", ["model"], registry=registry
        )
        self.in_flight = Gauge("ensembleflow_requests_in_flight", "HTTP requests at work", registry=registry)
        self.connections = Gauge("ensembleflow_connections", "open connections", registry=registry)
        Gauge("ensembleflow_queued_images", "images that wait for a batch", registry=registry).set_function(
            queued_images
        )
        Gauge("ensembleflow_ready", "1 if every member answers as the bundle says", registry=registry).set_function(
            ready
        )
        self._registry.register(_Workers(status))
        self._shares: LiveShares | None = None
        # Looking children up by their labels costs more than counting.
        self._of_requests = cache(lambda route, code: (self._requests.labels(route, code), self._seconds.labels(route)))
        self._of_member = cache(self._member_seconds.labels)

    def watch_cascade(self, intervals: Mapping[str, tuple[float, float]]) -> None:
        """Count the images that each member of a cascade sees, and compare their share with what was calibrated.

        Args:
            intervals: the calibrated interval of each member's share, in the order in which they answer.
        """
        self._shares = LiveShares(intervals)
        self._registry.register(self._shares)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def request(self, route: str, code: int, seconds: float, n_images: int) -> None:
        """Count an answered request; `n_images` are those that it was answered for."""
        answered, times = self._of_requests(route, code)
        answered.inc()
        times.observe(seconds)
        self._images.inc(n_images)
        if n_images:
            self.served.answered.add(seconds)
            self.served.n_images += n_images
            self.served.last_answer = time.time()
        elif route.endswith(_INFERENCE):
            self.served.refused.add(seconds)

    def batch_finished(self, n_images: int, n_requests: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_images.observe(n_images)
        self._batch_requests.observe(n_requests)
        self._batch_seconds.observe(seconds)
        self.served.batches.add(seconds)

    def member_answered(self, model: str, n_images: int, seconds: float) -> None:
        """Count a member's work."""
        self._of_member(model).observe(seconds)

    def member_failed(self, model: str, reason: str) -> None:
        """Count the end of a member's process."""
        self._failures.labels(model).inc()

    def cascade_answered(self, n_seen: Mapping[str, int]) -> None:
        """Count the images that each member of a cascade has seen."""
        if self._shares is not None:
            self._shares.add(n_seen)


class _Workers:
    """The members' processes, read when Prometheus asks."""

    def __init__(self, status: Callable[[], Sequence[WorkerStatus]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        restarts = CounterMetricFamily(
            "ensembleflow_worker_restarts", "restarts of members' processes", labels=["model", "device"]
        )
        memory = GaugeMetricFamily(
            "ensembleflow_worker_peak_memory_bytes", "the most memory of a process", labels=["model", "device"]
        )
        states = GaugeMetricFamily("ensembleflow_workers", "members' processes by state", labels=["state"])
        tally = Tally({"starting": 0, "ready": 0, "restarting": 0})
        for worker in self._status():
            tally[worker.state] += 1
            restarts.add_metric([worker.model, worker.device], worker.restarts)
            memory.add_metric([worker.model, worker.device], worker.peak_memory_mb * 2**20)
        for state, count in tally.items():
            states.add_metric([state], count)
        yield from (restarts, memory, states)
