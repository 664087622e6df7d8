"""How many trials keep a number of devices busy."""

from __future__ import annotations

import math
from collections.abc import Callable

from ensembleflow.search.simulation.simulate import Simulation

__all__ = ["MOST_TRIALS", "trials_to_keep_busy"]

# Beyond it a simulation takes long, and nobody searches so much.
MOST_TRIALS = 50_000
_TOLERANCE = 0.05
# Jobs a device from which on the time outside the tail shows what more jobs would bring.
_FEW = 8


def trials_to_keep_busy(
    run: Callable[[int], Simulation], n_devices: int, trials_per_job: int, occupancy: float = 0.8
) -> int | None:
    """The smallest number of trials found with which the devices are occupied for that share of the search.

    The next number to try follows from the last one's tail, which more trials hardly lengthen; within 5 % the search
    ends. Occupancy does not grow evenly with the number of trials (it falls whenever one more job begins a new round),
    so that a smaller number may do by luck.

    Args:
        run: simulates the search with so many trials on these devices.
        n_devices: that are to be kept busy.
        trials_per_job: trials are counted in whole jobs.
        occupancy: the share wanted.

    Returns:
        None where not even 50,000 trials do, or where starts, storage or scheduler take too much of the time.
    """
    low, high, n_jobs = 0, math.inf, n_devices
    most = max(n_devices, MOST_TRIALS // trials_per_job)
    while high == math.inf or high - low > max(1, _TOLERANCE * high):
        found = run(n_jobs * trials_per_job)
        wanted = _jobs_for(found, n_jobs, occupancy)
        if found.occupancy >= occupancy:
            high = n_jobs
        else:
            low = n_jobs
        if high < math.inf:
            margin = 0.2 * (high - low)
            between = int(min(max(wanted or 0, low + margin), high - margin))
            n_jobs = int(min(max(between, low + 1), high - 1))
        elif low == most or (wanted is None and n_jobs >= _FEW * n_devices):
            return None
        else:
            n_jobs = min(most, math.ceil(min(max(wanted or 4 * n_jobs, 1.25 * n_jobs), 8 * n_jobs)))
    return int(high) * trials_per_job


def _jobs_for(found: Simulation, n_jobs: int, occupancy: float) -> float | None:
    """The number of jobs that would do if only the time outside the tail grew with it; None if none would."""
    outside = found.duration_seconds * found.n_devices - found.tail_device_seconds
    if found.occupied_seconds <= occupancy * outside:
        return None
    return n_jobs * occupancy * found.tail_device_seconds / (found.occupied_seconds - occupancy * outside)
