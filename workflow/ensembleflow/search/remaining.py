"""How long a search still takes, estimated from the trials that ended and those that run."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

__all__ = ["expected_epochs", "makespan", "most_at_once", "readable_duration"]


def expected_epochs(ended: Sequence[int], running: Sequence[int], max_epochs: int) -> list[float]:
    """How many epochs more a trial trains that has finished 0, 1, … `max_epochs` and goes on.

    The product-limit estimate (Kaplan and Meier 1958): of those that reached an epoch, running ones included, the
    share that ended there. The mean of the ended trials alone would be too low while the long ones still run. Where
    no trial has ended, all are expected to train to the end.

    Args:
        ended: epochs of each trial that ended, for whatever reason.
        running: finished epochs of each trial that has not.
        max_epochs: of a trial that is never stopped.
    """
    stops, reached = Counter(ended), 0
    reaching = Counter([*ended, *running])
    left = [0.0] * (max_epochs + 1)
    for epoch in range(max_epochs, 0, -1):
        reached += reaching[epoch]
        goes_on = 1 - stops[epoch] / reached if reached else 1.0
        left[epoch - 1] = 1 + goes_on * left[epoch]
    return left


def makespan(running_seconds: Sequence[float], n_workers: int, n_waiting: int, seconds: float) -> float:
    """Seconds until the last trial ends if each worker takes the next waiting one as soon as it is free.

    Args:
        running_seconds: what each running trial still takes.
        n_workers: that train; at least one.
        n_waiting: trials that nobody has begun.
        seconds: that each of them takes.
    """
    idle = [0.0] * (n_workers - len(running_seconds))
    free_at = [*running_seconds, *idle]
    heapq.heapify(free_at)
    for _ in range(n_waiting):
        heapq.heappush(free_at, heapq.heappop(free_at) + seconds)
    return max(free_at)


def most_at_once(intervals: Sequence[tuple[float, float]], since: float) -> int:
    """The largest number of intervals `[start, end)` that had begun and not ended at one moment after `since`."""
    recent = [(max(start, since), end) for start, end in intervals if end > since]
    return max((sum(start <= moment < end for start, end in recent) for moment, _ in recent), default=0)


def readable_duration(seconds: float) -> str:
    """Seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
