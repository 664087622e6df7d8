"""What a prediction costs: seconds, latency, memory and energy of one device that predicts with one model."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import CostConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import ArtefactError, LibraryError
from ensembleflow.io import warn_of_other_work, write_csv
from ensembleflow.library.peak_memory import measure_peak_memory
from ensembleflow.library.ranking import kept_models
from ensembleflow.models import (
    ExportedModel,
    configure_tensorflow,
    device_name,
    import_tensorflow,
    load_exported,
    open_energy_counter,
)

__all__ = ["measure_costs"]

# The repeats of one model are spread over so many passes through the library, so that a machine that
# speeds up or slows down meanwhile does so for all models alike.
_PASSES = 3
# Loading a small model takes longer than a repeat, so the first ones are loaded while memory is measured, and stay
# loaded from pass to pass, up to so many bytes of weights.
_KEPT_LOADED_BYTES = 2**28

logger = logging.getLogger("ensembleflow.library")


def measure_costs(
    models_csv: str | Path,
    exported_dir: str | Path,
    dataset_path: str | Path,
    config: CostConfig,
    costs_csv: str | Path,
) -> None:
    """Measure each kept model's exported function, one at a time, on an otherwise idle device.

    Each pass warms a model up, times its share of the repeats, and then its share of the requests of one image.

    | column | is |
    | --- | --- |
    | `cost_seconds` | median time of all repeats to predict `n_images` images, with quartiles and minimum beside it |
    | `latency_p50_seconds`, `latency_p99_seconds` | percentiles of the time of a request of one image |
    | `peak_memory_bytes` | memory of a process of its own for the model and one batch: see `measure_peak_memory` |
    | `energy_joules` | mean energy of the GPU, or of the machine's processors, idle cores included, for `n_images` |
    | `other_work_percent` | how much others used the busiest of the job's cores just before a pass, the most of three |

    Where a device tells nothing of its memory or its energy, that column is left out, as the latencies are without
    requests. So every cost is finite and above 0, and a budget may name its column.

    Args:
        models_csv: the ranked table.
        exported_dir: the exported functions.
        dataset_path: the dataset whose validation images are predicted, repeated up to `n_images`.
        config: device, threads, images, batch size, repeats and requests.
        costs_csv: the table to write, one row per model in rank order.

    Raises:
        LibraryError: the config asks for a GPU and there is none; or a model cannot be loaded or predict a batch.
        ArtefactError: the table or the dataset cannot be read.
    """
    models = kept_models(models_csv)["model"].tolist()
    folders = [Path(exported_dir) / model for model in models]
    use_gpu = config.device == "gpu"
    with open_dataset(dataset_path) as data:
        valid = data.image_array("valid")
        # In ascending runs, as HDF5 wants them.
        images = np.concatenate([valid[: config.n_images - i] for i in range(0, config.n_images, len(valid))])
    load = _Loader()

    def make_ready() -> None:
        configure_tensorflow(config.threads, use_gpu=use_gpu)
        load.load_ahead(folders)

    # First: a GPU that this process has opened may refuse others, and what it takes of one would be counted.
    meanwhile = partial(import_tensorflow, use_gpu=True) if use_gpu else make_ready
    memory = measure_peak_memory(
        folders, images[: config.batch_size], threads=config.threads, use_gpu=use_gpu, meanwhile=meanwhile
    )
    if use_gpu:
        make_ready()
    device = device_name()
    if use_gpu != (device != "cpu"):
        raise LibraryError(
            "costs would be measured on another device than asked for",
            where="library.cost.device",
            found=f"this job computes on {device}",
            expected=config.device,
            hint="ask for a GPU with resources.library.gpus, or set library.cost.device",
        )
    measured = _measure(dict(zip(models, folders, strict=True)), images, config, load)
    columns = _optional_columns(list(measured.values()), memory, config.repeats)
    rows = []
    for index, (model, values) in enumerate(measured.items()):
        q25, median, q75 = np.percentile(values.seconds, [25, 50, 75])
        rows.append(
            {
                "model": model,
                "device": device,
                "threads": config.threads,
                "cost_seconds": median,
                "cost_seconds_q25": q25,
                "cost_seconds_q75": q75,
                "cost_seconds_min": min(values.seconds),
                "images_per_second": config.n_images / median,
                "n_images": config.n_images,
                "batch_size": config.batch_size,
                "repeats": config.repeats,
                "parameter_bytes": values.parameter_bytes,
                "other_work_percent": values.other_work_percent,
                **{column: numbers[index] for column, numbers in columns.items()},
            }
        )
    write_csv(costs_csv, pd.DataFrame(rows))


@dataclass
class _Measured:
    """Of one model: the repeats' and the requests' times, their energy if known, and what others did meanwhile."""

    seconds: list[float] = field(default_factory=list)
    latency_seconds: list[float] = field(default_factory=list)
    joules: float = 0.0
    parameter_bytes: int = 0
    other_work_percent: float = 0.0


def _measure(
    folders: Mapping[str, Path], images: npt.NDArray[np.uint8], config: CostConfig, load: _Loader
) -> dict[str, _Measured]:
    read_joules = open_energy_counter(use_gpu=config.device == "gpu") or (lambda: math.nan)
    measured = {model: _Measured() for model in folders}
    for pass_ in range(_PASSES):
        repeats = len(range(pass_, config.repeats, _PASSES))
        requests = range(pass_, config.latency_requests, _PASSES)
        other_work_percent = warn_of_other_work(os.sched_getaffinity(0))
        for model, folder in folders.items():
            function, values = load(folder), measured[model]
            values.parameter_bytes = function.parameter_bytes
            values.other_work_percent = max(values.other_work_percent, other_work_percent)
            for _ in range(config.warmup_repeats):
                _predict_seconds(function, images, config.batch_size)
            joules = read_joules()
            values.seconds += [_predict_seconds(function, images, config.batch_size) for _ in range(repeats)]
            values.joules += read_joules() - joules
            # One image may be computed by other kernels than a batch: these are warmed up too.
            if requests:
                _predict_seconds(function, images[:1], 1)
            for request in requests:
                place = request % len(images)
                values.latency_seconds.append(_predict_seconds(function, images[place : place + 1], 1))
        logger.info(
            "costs of %d kept models: pass %d/%d measured", len(folders), pass_ + 1, _PASSES, extra={"progress": True}
        )
    return measured


class _Loader:
    """Loads exported functions, and keeps them as far as there is room."""

    def __init__(self) -> None:
        self._kept: dict[Path, ExportedModel] = {}
        self._left_bytes = _KEPT_LOADED_BYTES

    def __call__(self, folder: Path) -> ExportedModel:
        if folder in self._kept:
            return self._kept[folder]
        function = load_exported(folder)
        if function.parameter_bytes <= self._left_bytes:
            self._left_bytes -= function.parameter_bytes
            self._kept[folder] = function
        return function

    def load_ahead(self, folders: Sequence[Path]) -> None:
        """Load those for which there is room, up to the first for which there is none."""
        for folder in folders:
            with suppress(ArtefactError):  # told by whoever measures it
                self(folder)
                if folder not in self._kept:
                    return


def _optional_columns(measured: Sequence[_Measured], memory: Sequence[int] | None, n_repeats: int) -> dict[str, Any]:
    """The columns that not every device or config has: by name, (models,)."""
    columns: dict[str, Any] = {}
    if all(values.latency_seconds for values in measured):
        latencies = [np.percentile(values.latency_seconds, [50, 99]) for values in measured]
        columns["latency_p50_seconds"], columns["latency_p99_seconds"] = np.transpose(latencies)
    if memory is None:
        logger.info("costs.csv has no peak_memory_bytes: this device does not tell it")
    else:
        columns["peak_memory_bytes"] = memory
    # Not above 0 where it is not told, and where the counter goes in steps larger than what was measured.
    if all(values.joules > 0 for values in measured):
        columns["energy_joules"] = [values.joules / n_repeats for values in measured]
    else:
        logger.info("costs.csv has no energy_joules: this device does not tell it, or not finely enough")
    return columns


def _predict_seconds(function: ExportedModel, images: npt.NDArray[np.uint8], batch_size: int) -> float:
    started = time.perf_counter()
    function.predict(images, batch_size)
    return time.perf_counter() - started
