"""How many trials keep a number of devices busy."""

from __future__ import annotations

from collections.abc import Callable

from ensembleflow.search.simulation.simulate import Simulation

__all__ = ["trials_to_keep_busy"]

# Jobs a device: where more than a few make nothing better, or many are not enough, no number is.
_FEW, _GIVE_UP = 8, 64
_NO_GAIN = 0.002
_TOLERANCE = 0.03


def trials_to_keep_busy(
    run: Callable[[int], Simulation], n_devices: int, trials_per_job: int, occupancy: float = 0.8
) -> int | None:
    """The smallest number of trials found with which the devices are occupied for that share of the search.

    By doubling and then bisection, down to 3 %. Occupancy does not grow evenly with the number of trials (it
    falls whenever one more job begins a new round), so that a smaller number may do by luck.

    Args:
        run: simulates the search with so many trials on these devices.
        n_devices: that are to be kept busy.
        trials_per_job: trials are counted in whole jobs.
        occupancy: the share wanted.

    Returns:
        None where 64 jobs a device do not reach it either: starts, storage or scheduler take the time.
    """
    low, high, reached = 0, n_devices, run(n_devices * trials_per_job).occupancy
    while reached < occupancy:
        low, high, before = high, 2 * high, reached
        if high > _GIVE_UP * n_devices:
            return None
        reached = run(high * trials_per_job).occupancy
        if high > _FEW * n_devices and reached < before + _NO_GAIN:
            return None
    while high - low > max(1, _TOLERANCE * high):
        middle = (low + high) // 2
        if run(middle * trials_per_job).occupancy < occupancy:
            low = middle
        else:
            high = middle
    return high * trials_per_job
