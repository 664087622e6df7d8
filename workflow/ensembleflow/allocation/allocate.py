"""The allocation stage: place an ensemble's members on devices and make it fast, by measuring."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.allocation.bench import bench_allocation
from ensembleflow.allocation.devices import Device, assign_cores
from ensembleflow.allocation.pipeline import Pipeline
from ensembleflow.allocation.placement import Allocation, Placement, allocation_text, find_neighbours
from ensembleflow.allocation.refine import Refinement, Score, refine
from ensembleflow.allocation.worker import Member, MemberError
from ensembleflow.allocation.worst_fit import worst_fit
from ensembleflow.config.models import AllocationConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import AllocationError
from ensembleflow.io import provenance, read_csv, read_json, warn_of_other_work, write_csv, write_json

__all__ = ["allocate_ensemble"]

_LOG = logging.getLogger("ensembleflow.allocation")
_SECONDS_BETWEEN_PROGRESS = 5.0


def allocate_ensemble(
    selection_json: str | Path,
    exported_dir: str | Path,
    costs_csv: str | Path,
    dataset_h5: str | Path,
    config: AllocationConfig,
    n_devices: int,
    output_json: str | Path,
    output_csv: str | Path,
) -> None:
    """Place a chosen ensemble on the first `n_devices` devices: worst-fit by memory, then refined by speed.

    Memory is each member's peak at the largest configured batch size, measured when its process starts. All
    members begin at that batch size: it is the one known to fit, and the nearest to the fastest where the
    images of a bench come all at once. (The paper leaves the first batch size open.)

    Args:
        selection_json: the chosen ensemble (`budget-{budget}.json`).
        exported_dir: the folder of the models' exported functions.
        costs_csv: the models' costs, which only order the search.
        dataset_h5: the dataset, whose validation images are predicted.
        config: devices, batch sizes and how long to search.
        n_devices: how many of the devices to use.
        output_json: the allocation.
        output_csv: every allocation benched.

    Raises:
        AllocationError: a member cannot run or fits on no device.
        ArtefactError: an input is missing or damaged.
    """
    selection = read_json(selection_json, ["study", "budget", "members"])
    models: list[str] = selection["members"]
    costs = _read_costs(costs_csv, models)
    images, image_shape, n_classes = _bench_images(dataset_h5, config.bench_images)
    if not 1 <= n_devices <= len(config.devices):
        raise AllocationError(
            f"there are no {n_devices} devices",
            where="allocation.devices",
            found=", ".join(device.name for device in config.devices),
            hint="add devices, or lower allocation.device_counts",
        )
    devices = assign_cores(config.devices[:n_devices])
    title = f"budget {selection['budget']} on {n_devices} device{'s' if n_devices > 1 else ''}"

    first_batch_size = max(config.batch_sizes)
    # Worst-fit needs the memory, which only a running process tells: until then members take turns.
    provisional = tuple(
        Placement(model, devices[place % n_devices].name, first_batch_size) for place, model in enumerate(models)
    )
    members = [Member(model, Path(exported_dir) / model) for model in models]
    pipeline = Pipeline(members, devices, provisional, image_shape=image_shape, n_classes=n_classes)
    with _hint_at_batch_size(first_batch_size), pipeline:
        # The members wait now: whatever keeps their cores busy will falsify the benches.
        warn_of_other_work(core for device in devices for core in device.core_ids)
        memory_mb = {each.model: each.peak_memory_mb for each in pipeline.status()}
        placed = worst_fit(memory_mb, devices)
        start = tuple(Placement(model, placed[model], first_batch_size) for model in models)
        found = refine(
            start,
            lambda allocation: find_neighbours(allocation, devices, config.batch_sizes, memory_mb, costs),
            _Benching(pipeline, images, config, title),
            config.max_benches,
        )
    _check_that_it_runs(found, title)
    write_csv(output_csv, _search_table(found))
    write_json(output_json, _result(selection, devices, memory_mb, found, config))
    best = found.best.score.images_per_second
    at_start = found.benches[0].score.images_per_second
    _LOG.info(
        "%s: %s images/s (worst-fit alone %s) after %d benches; %s",
        title,
        f"{best:,.0f}",
        f"{at_start:,.0f}",
        len(found.benches),
        found.stop_reason,
        extra={"progress": True},
    )


class _Benching:
    """`bench` for `refine`: it remembers the best speed, and tells from time to time how far the search is."""

    def __init__(self, pipeline: Pipeline, images: npt.NDArray[np.uint8], config: AllocationConfig, title: str) -> None:
        self._pipeline = pipeline
        self._images = images
        self._config = config
        self._title = title
        self._best = 0.0
        self._n_benches = 0
        self._told_at = time.monotonic()

    def __call__(self, allocation: Allocation) -> Score:
        if self._n_benches == 0:
            # The first request touches memory for the first time, which the start must not be charged with.
            bench_allocation(self._pipeline, allocation, self._images, repeats=1)
        score = bench_allocation(self._pipeline, allocation, self._images, self._config.bench_repeats, self._best)
        self._best = max(self._best, score.images_per_second)
        self._n_benches += 1
        _LOG.info(
            "%s: bench %d: %s images/s %s %s",
            self._title,
            self._n_benches,
            f"{score.images_per_second:,.0f}",
            allocation_text(allocation),
            score.failure,
        )
        if time.monotonic() - self._told_at >= _SECONDS_BETWEEN_PROGRESS:
            self._told_at = time.monotonic()
            _LOG.info(
                "%s: %d/%d benches, best %s images/s",
                self._title,
                self._n_benches,
                self._config.max_benches,
                f"{self._best:,.0f}",
                extra={"progress": True},
            )
        return score


@contextmanager
def _hint_at_batch_size(batch_size: int) -> Iterator[None]:
    try:
        yield
    except MemberError as error:
        error.hint = f"if memory is the reason, lower the largest of allocation.batch_sizes ({batch_size})"
        raise


def _read_costs(costs_csv: str | Path, models: Sequence[str]) -> dict[str, float]:
    table = read_csv(costs_csv, ["model", "cost_seconds"])
    costs = {str(model): float(cost) for model, cost in zip(table["model"], table["cost_seconds"], strict=True)}
    missing = [model for model in models if model not in costs]
    if missing:
        raise AllocationError(
            "members of the ensemble have no cost",
            where=costs_csv,
            found=", ".join(missing),
            expected="a row for each member",
            hint=f"delete {costs_csv} and run snakemake again",
        )
    return {model: costs[model] for model in models}


def _bench_images(dataset_h5: str | Path, n_images: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int], int]:
    with open_dataset(dataset_h5) as dataset:
        validation = dataset.image_array("valid")[: min(n_images, dataset.image_array("valid").shape[0])]
        tiled = np.resize(validation, (n_images, *dataset.image_shape))  # repeats whole images
        return tiled, dataset.image_shape, dataset.n_classes


def _check_that_it_runs(found: Refinement[Allocation], title: str) -> None:
    if found.best.score.images_per_second <= 0:
        raise AllocationError(
            f"{title}: no allocation could run",
            found="\n            ".join(f"{bench.move}: {bench.score.failure}" for bench in found.benches),
            hint="if memory is the reason, lower the largest of allocation.batch_sizes",
        )


def _search_table(found: Refinement[Allocation]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "bench": number,
                "step": bench.step,
                "move": bench.move,
                "accepted": any(bench is each for each in found.accepted),
                "images_per_second": bench.score.images_per_second,
                "images_per_second_q25": bench.score.images_per_second_q25,
                "images_per_second_q75": bench.score.images_per_second_q75,
                "failure": bench.score.failure,
                "allocation": allocation_text(bench.state),
                "repeats": bench.score.repeats,
            }
            for number, bench in enumerate(found.benches, start=1)
        ]
    )


def _result(
    selection: Mapping[str, Any],
    devices: Sequence[Device],
    memory_mb: Mapping[str, float],
    found: Refinement[Allocation],
    config: AllocationConfig,
) -> dict[str, Any]:
    best = found.best
    return {
        "study": selection["study"],
        "budget": selection["budget"],
        "n_devices": len(devices),
        "devices": [
            {"name": each.name, "core_ids": list(each.core_ids), "memory_mb": each.memory_mb} for each in devices
        ],
        "members": [
            {
                "model": each.model,
                "device": each.device,
                "batch_size": each.batch_size,
                "memory_mb": round(memory_mb[each.model], 1),
            }
            for each in best.state
        ],
        "images_per_second": best.score.images_per_second,
        "images_per_second_q25": best.score.images_per_second_q25,
        "images_per_second_q75": best.score.images_per_second_q75,
        "worst_fit_images_per_second": found.benches[0].score.images_per_second,
        "n_benches": len(found.benches),
        "stop_reason": found.stop_reason,
        "bench": {"n_images": config.bench_images, "repeats": config.bench_repeats},
        "provenance": provenance(),
    }
