"""Fitting the simulated bench to real ones, and measuring how far off it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import SIGMAS_TO_P99, Calibration, SimulatedBench
from ensembleflow.allocation.neighbours import Neighbourhood
from ensembleflow.allocation.worst_fit import worst_fit
from ensembleflow.errors import AllocationError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, allocation_text

__all__ = ["calibrate", "calibration_allocations", "compare_benches"]

Measured = Sequence[tuple[Allocation, Score]]

# First step, smallest step, lowest and highest value of each parameter that is fitted.
_FITTED = {
    "batch_overhead_seconds": (1e-3, 2e-5, 0.0, 0.1),
    "device_contention": (0.2, 0.01, -1.0, 1.0),
    "machine_contention": (0.2, 0.01, 0.0, 1.5),
}


def calibration_allocations(
    models: Sequence[str], devices: Sequence[Device], profiles: ProfileTable, n_images: int
) -> list[Allocation]:
    """Allocations by whose real benches a calibration's parameters can be fitted.

    The members spread by worst-fit, the same in the smallest batches, all on one device, and what the profiles find
    best; none where they do not fit.
    """
    found: dict[Allocation, None] = {}
    with suppress(AllocationError):
        spread = worst_fit(models, devices, profiles)
        by_name = {device.name: device for device in devices}
        runs = [profiles.runs(each.model, by_name[each.device].kind) for each in spread]
        smallest = [
            min(run.batch_size for run in some if run.engine == each.engine)
            for each, some in zip(spread, runs, strict=True)
        ]
        found[spread] = None
        found[tuple(replace(each, batch_size=size) for each, size in zip(spread, smallest, strict=True))] = None
        found[Neighbourhood(devices, profiles, n_images).best_predicted(spread)] = None
        found[worst_fit(models, devices[:1], profiles)] = None
    return list(found)


def calibrate(bench: SimulatedBench, measured: Measured) -> Calibration:
    """The calibration with which a simulated bench is nearest to real ones: least absolute errors of the logarithms.

    Images/s and, where measured, median latency count alike. The parameters are fitted one step at a time, with
    steps that are halved where none helps: a simulation is not smooth. The jitter comes from what lies between
    the median and the 99th percentile of the latencies.

    Args:
        bench: with the profiles of the devices on which the real benches ran, and the same requests.
        measured: allocations and their real scores; failed ones are left out.
    """
    succeeded = [(allocation, score) for allocation, score in measured if score.images_per_second]
    if not succeeded:
        return bench.calibration
    best, steps = Calibration(), {name: first for name, (first, *_) in _FITTED.items()}
    loss = _loss(replace(bench, calibration=best), succeeded)
    while any(steps[name] >= least for name, (_, least, *_) in _FITTED.items()):
        moved = False
        for name, (_, _, low, high) in _FITTED.items():
            for sign in (1, -1):
                value = min(high, max(low, getattr(best, name) + sign * steps[name]))
                candidate = replace(best, **{name: value})
                candidate_loss = _loss(replace(bench, calibration=candidate), succeeded)
                if candidate_loss < loss - 1e-9:
                    best, loss, moved = candidate, candidate_loss, True
                    break
        if not moved:
            steps = {name: step / 2 for name, step in steps.items()}
    best = replace(best, jitter=_latency_spread([score for _, score in succeeded]) / SIGMAS_TO_P99)
    errors = compare_benches(replace(bench, calibration=best), succeeded).relative_error
    return replace(best, n_benches=len(succeeded), median_relative_error=float(errors.abs().median()))


def compare_benches(bench: SimulatedBench, measured: Measured) -> pd.DataFrame:
    """Simulate what was measured; failed benches are left out.

    Returns:
        one row per bench: allocation; measured and simulated images/s and median latency in ms; and the relative error
        of the images/s, (simulated - measured) / measured.
    """
    rows = []
    for allocation, real in measured:
        if real.images_per_second:
            simulated = bench(allocation)
            speed, expected = simulated.median("images_per_second") or 0.0, real.median("images_per_second") or 0.0
            rows.append(
                {
                    "allocation": allocation_text(allocation),
                    "measured_images_per_second": expected,
                    "simulated_images_per_second": speed,
                    "relative_error": speed / expected - 1,
                    "measured_latency_p50_ms": real.median("latency_p50_ms"),
                    "simulated_latency_p50_ms": simulated.median("latency_p50_ms"),
                }
            )
    columns = ["allocation", "measured_images_per_second", "simulated_images_per_second", "relative_error"]
    return pd.DataFrame(rows, columns=[*columns, "measured_latency_p50_ms", "simulated_latency_p50_ms"])


def _latency_spread(scores: Sequence[Score]) -> float:
    """Median logarithm of the 99th percentile by the median; 0 where no latency was measured."""
    ratios = [
        math.log(p99 / p50)
        for each in scores
        for p50, p99 in zip(each.latency_p50_ms, each.latency_p99_ms, strict=True)
    ]
    return float(np.median(ratios)) if ratios else 0.0


def _loss(bench: SimulatedBench, measured: Measured) -> float:
    table = compare_benches(bench, measured)
    ratios = [
        table[f"simulated_{name}"].astype(float) / table[f"measured_{name}"].astype(float)
        for name in ("images_per_second", "latency_p50_ms")
    ]
    return float(np.abs(np.log(pd.concat(ratios).dropna().to_numpy())).mean())
