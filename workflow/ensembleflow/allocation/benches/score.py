"""How good one allocation is, as measured or simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["OBJECTIVES", "Objective", "Score"]

Objective = Literal["throughput", "latency_p50", "latency_p99"]
OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency_p50", "latency_p99")


@dataclass(frozen=True)
class Score:
    """What the repeats of one bench gave.

    Attributes:
        objective: by which scores are compared.
        images_per_second: of each repeat; empty after a failure.
        latency_p50_ms: the median latency of each repeat's requests in ms; empty where it was not measured.
        latency_p99_ms: the 99th percentile, likewise.
        failure: empty, or why the allocation could not run.
    """

    objective: Objective = "throughput"
    images_per_second: tuple[float, ...] = ()
    latency_p50_ms: tuple[float, ...] = ()
    latency_p99_ms: tuple[float, ...] = ()
    failure: str = ""

    @property
    def values(self) -> tuple[float, ...]:
        """The objective of each repeat, higher being better: images/s, or requests/s of such a latency."""
        if self.failure:
            return ()
        if self.objective == "throughput":
            return self.images_per_second
        latencies_ms = self.latency_p50_ms if self.objective == "latency_p50" else self.latency_p99_ms
        return tuple(1000 / ms for ms in latencies_ms)

    @property
    def value(self) -> float:
        """Median of the values; 0 after a failure."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """A quantile of the values; 0 after a failure."""
        return float(np.quantile(self.values, share)) if self.values else 0.0

    def median(self, name: Literal["images_per_second", "latency_p50_ms", "latency_p99_ms"]) -> float | None:
        """Median over the repeats of what was measured; None where it was not."""
        repeats: tuple[float, ...] = getattr(self, name)
        return float(np.median(repeats)) if repeats else None

    def improves_on(self, other: Score) -> bool:
        """Whether it is better by more than the spread of both: their interquartile ranges do not meet."""
        return self.quantile(0.25) > other.quantile(0.75)
