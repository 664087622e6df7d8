"""What the allocation search leaves behind: `search-{n}.csv` and `devices-{n}.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import SimulatedBench
from ensembleflow.allocation.hill_climb import Refinement
from ensembleflow.config import MEASURED, SIMULATED, AllocationConfig
from ensembleflow.errors import ArtefactError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement, allocation_text
from ensembleflow.io import provenance, read_json
from ensembleflow.models.engines import DEFAULT_ENGINE, ENGINES

__all__ = [
    "allocation_result",
    "bench_kind",
    "read_allocation",
    "search_table",
]

_Bench = Callable[[Allocation], Score]


def bench_kind(bench: _Bench) -> str:
    """Whether a bench's scores are measured or simulated."""
    return SIMULATED if isinstance(bench, SimulatedBench) else MEASURED


def search_table(found: Refinement[Allocation], bench: _Bench) -> pd.DataFrame:
    """One row per bench, in the order in which they ran."""
    return pd.DataFrame(
        [
            {
                "bench": number,
                "step": each.step,
                "move": each.move,
                "accepted": any(each is one for one in found.accepted),
                **_speed(each.score),
                "objective": each.score.objective,
                "objective_value": each.score.value,
                "objective_value_q25": each.score.quantile(0.25),
                "objective_value_q75": each.score.quantile(0.75),
                "latency_p50_ms": each.score.median("latency_p50_ms"),
                "latency_p99_ms": each.score.median("latency_p99_ms"),
                "failure": each.score.failure,
                "allocation": allocation_text(each.state),
                "repeats": len(each.score.images_per_second),
                "bench_kind": bench_kind(bench),
            }
            for number, each in enumerate(found.benches, start=1)
        ]
    )


def allocation_result(
    found: Refinement[Allocation],
    devices: Sequence[Device],
    profiles: ProfileTable,
    bench: _Bench,
    config: AllocationConfig,
    **about: Any,
) -> dict[str, Any]:
    """The content of `devices-{n}.json`.

    Args:
        found: the search.
        devices: those that it could use.
        profiles: for the members' memory.
        bench: what scored the allocations.
        config: the objective and the requests.
        about: study and budget.
    """
    by_name = {device.name: device for device in devices}
    best, start = found.best.score, found.benches[0].score
    return {
        **about,
        "n_devices": len(devices),
        "devices": [_device(each) for each in devices],
        "members": [
            {
                "model": each.model,
                "device": each.device,
                "batch_size": each.batch_size,
                "engine": each.engine,
                "memory_mb": round(profiles.memory_mb(each, by_name[each.device]), 1),
            }
            for each in found.best.state
        ],
        **_speed(best),
        "latency_p50_ms": best.median("latency_p50_ms"),
        "latency_p99_ms": best.median("latency_p99_ms"),
        "worst_fit_images_per_second": start.median("images_per_second") or 0.0,
        "worst_fit_latency_p50_ms": start.median("latency_p50_ms"),
        "worst_fit_latency_p99_ms": start.median("latency_p99_ms"),
        "n_benches": len(found.benches),
        "stop_reason": found.stop_reason,
        "bench": _about_bench(bench, config),
        "provenance": provenance(),
    }


def read_allocation(path: str | Path, models: Sequence[str] | None = None) -> Allocation:
    """The allocation of a `devices-{n}.json`, or of what `ensembleflow allocate` wrote.

    Args:
        path: the file.
        models: the ensemble's members, in order; None takes any.

    Raises:
        ArtefactError: the file is missing or damaged, or is of another ensemble.
    """
    found = read_json(path, ["members"])
    try:
        allocation = tuple(_placement(each) for each in found["members"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            "an allocation is damaged",
            where=f"{path}: members",
            found=repr(error),
            expected="for each member model, device, batch_size and engine",
        ) from None
    placed = list(dict.fromkeys(each.model for each in allocation))
    if models is not None and placed != list(models):
        raise ArtefactError(
            "an allocation is of another ensemble",
            where=f"{path}: members",
            found=" ".join(placed),
            expected=" ".join(models),
            hint="make it from this bundle: ensembleflow allocate BUNDLE --output FILE",
        )
    return allocation


def _placement(entry: Mapping[str, Any]) -> Placement:
    placement = Placement(
        str(entry["model"]),
        str(entry["device"]),
        int(entry["batch_size"]),
        str(entry.get("engine", DEFAULT_ENGINE)),
    )
    if placement.batch_size < 1 or placement.engine not in ENGINES:
        raise ValueError(f"batch_size {placement.batch_size}, engine {placement.engine}")
    return placement


def _speed(score: Score) -> dict[str, float]:
    speeds = pd.Series(score.images_per_second or (0.0,))
    return {
        "images_per_second": float(speeds.median()),
        "images_per_second_q25": float(speeds.quantile(0.25)),
        "images_per_second_q75": float(speeds.quantile(0.75)),
    }


def _device(device: Device) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": device.name,
        "core_ids": list(device.core_ids),
        "memory_mb": device.memory_mb,
    }
    if device.gpu is not None:
        entry |= {"gpu": device.gpu, "gpu_name": device.gpu_name}
    if device.speed != 1:
        entry["speed"] = device.speed
    return entry


def _about_bench(bench: _Bench, config: AllocationConfig) -> dict[str, Any]:
    about: dict[str, Any] = {
        "kind": bench_kind(bench),
        "objective": config.objective,
        "n_images": config.bench_images,
        "repeats": config.bench_repeats,
        "request_images": config.request_images,
        "latency_requests": config.latency_requests,
    }
    if isinstance(bench, SimulatedBench):
        calibration = asdict(bench.calibration)
        about["repeats"] = 1
        about["calibration"] = {name: None if math.isnan(value) else value for name, value in calibration.items()}
    return about
