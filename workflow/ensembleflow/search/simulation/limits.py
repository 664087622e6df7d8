"""What all devices share: Optuna's storage, the scheduler, the sampler's cost."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ["Limits", "Server", "sampler_seconds"]

# Seconds to propose one trial when so many are finished, by algorithm (docs/search.md; benchmarks/samplers.py).
_SAMPLER_SECONDS: dict[str, tuple[tuple[int, float], ...]] = {
    "tpe": ((50, 0.02), (100, 0.02), (200, 0.02), (500, 0.04)),
    "bohb": ((50, 0.02), (100, 0.02), (200, 0.02), (500, 0.04)),
    "smac": ((50, 0.09), (100, 0.1), (200, 0.3), (500, 0.7)),
    "gp": ((50, 0.4), (100, 0.7), (200, 1.2), (500, 3.0)),
}


def sampler_seconds(algorithm: str, n_finished: int) -> float:
    """Seconds that a model-based algorithm takes to propose a trial; 0 for the others.

    Linear between the measured numbers of trials, and beyond the last by the last slope.
    """
    points = _SAMPLER_SECONDS.get(algorithm, ())
    if not points:
        return 0.0
    place = min(max(bisect_left([n for n, _ in points], n_finished), 1), len(points) - 1)
    (low, at_low), (high, at_high) = points[place - 1], points[place]
    return max(0.0, at_low + (at_high - at_low) * (n_finished - low) / (high - low))


@dataclass(frozen=True)
class Limits:
    """What a search's jobs wait for besides their own training. Times in seconds.

    The defaults are on the safe side of what was measured (docs/benchmarks.md has the commands and the machines): a
    cluster's controller and file system are shared with others, those of the measurements were not.

    Attributes:
        launch_seconds: from a free device and a submitted job to the job's process (on Slurm two nested starts
            of Snakemake; measured: a whole job that does nothing takes 4 s).
        start_seconds: from a process's start to its first trial's (importing TensorFlow).
        between_seconds: between two trials of one process.
        jobs_per_second: that Snakemake submits (measured: 70, and between 100 and 200 on a faster machine).
        max_jobs: that Snakemake has submitted and not seen end (`--jobs`); None is no limit.
        notice_seconds: from a job's end to Snakemake's noticing.
        storage_seconds: for which one write keeps all others waiting (measured: 0.0003 on an idle local disk,
            0.006 on one that other programs kept busy).
        writes_per_trial: to the storage, besides the epochs'.
        writes_per_epoch: to the storage; a rung writes one more.
        open_seconds_per_trial: that a new process takes to read the journal, for each trial in it.
    """

    launch_seconds: float = 8.0
    start_seconds: float = 10.0
    between_seconds: float = 0.0
    jobs_per_second: float = 70.0
    max_jobs: int | None = None
    notice_seconds: float = 0.0
    storage_seconds: float = 0.006
    writes_per_trial: int = 19
    writes_per_epoch: int = 1
    open_seconds_per_trial: float = 0.0005


class Server:
    """Serves one request at a time, in the order in which they come.

    A SimPy `Resource` of capacity 1 with a constant service time gives the same waits at several times the
    number of events. Recorded times contain each operation's own time, so only the waiting is added to them.

    Args:
        service_seconds: a request.
    """

    def __init__(self, service_seconds: float) -> None:
        self.service_seconds = service_seconds
        self.busy_seconds = 0.0
        self._free_at = 0.0

    def wait_seconds(self, now: float, n_requests: int) -> float:
        """Queue up requests; how long until the first of them is served."""
        start = max(now, self._free_at)
        work = n_requests * self.service_seconds
        self._free_at = start + work
        self.busy_seconds += work
        return start - now
