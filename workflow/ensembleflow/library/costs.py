"""What a prediction costs: seconds, latency, memory and energy of one device that predicts with one model."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import FASTEST, CostConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import ArtefactError, EngineError, LibraryError
from ensembleflow.io import warn_of_other_work, write_csv
from ensembleflow.library.engine_speed import engines_by_speed
from ensembleflow.library.peak_memory import measure_peak_memory
from ensembleflow.library.predict_seconds import predict_seconds
from ensembleflow.library.predictions import open_predictions
from ensembleflow.library.ranking import kept_models
from ensembleflow.models import configure_tensorflow, device_name, import_tensorflow, open_energy_counter
from ensembleflow.models.engines import DEFAULT_ENGINE, LoadedEngine, check_engine, load_engine, prepare_members
from ensembleflow.models.gpu import visible_gpus
from ensembleflow.models.tolerances import ANSWER_TOLERANCE, cache_rounding

__all__ = ["measure_costs"]

# The repeats of one model are spread over so many passes through the library, so that a machine that
# speeds up or slows down meanwhile does so for all models alike.
_PASSES = 3
# Loading a small model takes longer than a repeat, so the first ones are loaded while memory is measured, and stay
# loaded from pass to pass, up to so many bytes of weights.
_KEPT_LOADED_BYTES = 2**28
_CHECKED_IMAGES = 100

logger = logging.getLogger("ensembleflow.library")


def measure_costs(
    models_csv: str | Path,
    exported_dir: str | Path,
    predictions_h5: str | Path,
    dataset_path: str | Path,
    config: CostConfig,
    costs_csv: str | Path,
    engine: str = FASTEST,
) -> None:
    """Measure each kept model, computed by one engine, one at a time, on an otherwise idle device.

    With `fastest` the installed float32 engines are tried first (`engines_by_speed`), and should the fastest fail with
    a model that was not tried, the next one measures them all. Each pass warms a model up, times its share of the
    repeats, and then its share of the requests of one image.

    | column | is |
    | --- | --- |
    | `engine` | what computed the models; an allocation uses the same unless `allocation.engines` says otherwise |
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
        predictions_h5: the cached predictions, which the engine's answers must equal.
        dataset_path: the dataset whose validation images are predicted, repeated up to `n_images`.
        config: device, threads, images, batch size, repeats and requests.
        costs_csv: the table to write, one row per model in rank order.
        engine: a name of `FLOAT32_ENGINES`, or `fastest`.

    Raises:
        LibraryError: the config asks for a GPU and there is none; or a model cannot be loaded or predict a batch.
        EngineError: the engine is not installed, or answers otherwise than the cache.
        ArtefactError: the table or the dataset cannot be read.
    """
    kept = kept_models(models_csv)
    models = kept["model"].tolist()
    folders = [Path(exported_dir) / model for model in models]
    # Exported functions hold their weights in float32.
    parameter_bytes = [4 * int(n_parameters) for n_parameters in kept["n_parameters"]]
    with open_dataset(dataset_path) as data:
        valid = data.image_array("valid")
        # In ascending runs, as HDF5 wants them.
        images = np.concatenate([valid[: config.n_images - i] for i in range(0, config.n_images, len(valid))])
    expected, rounding = _cached_answers(predictions_h5, models, min(len(images), len(valid), _CHECKED_IMAGES))
    tolerance = ANSWER_TOLERANCE + rounding
    engines = [engine]
    if engine == FASTEST:
        sizes = {"batch_size": config.batch_size, "threads": config.threads}
        on_gpu = config.device == "gpu"
        engines = engines_by_speed(
            folders, parameter_bytes, images, expected, **sizes, use_gpu=on_gpu, tolerance=tolerance
        )
    library = _Library(models, folders, parameter_bytes, images, expected, tolerance)
    for place, name in enumerate(engines):
        try:
            rows = _measured_with(name, library, config)
            break
        except (LibraryError, EngineError) as error:
            if place + 1 == len(engines):
                raise
            reason = " ".join(str(error).split())
            logger.warning("costs are measured with %s, for %s fails: %s", engines[place + 1], name, reason)
    write_csv(costs_csv, pd.DataFrame(rows))


@dataclass(frozen=True)
class _Library:
    """What is measured: the kept models in rank order, what they predict, and what they must answer."""

    models: Sequence[str]
    folders: Sequence[Path]
    parameter_bytes: Sequence[int]
    images: npt.NDArray[Any]
    expected: Sequence[npt.NDArray[np.floating]] | None
    tolerance: float


def _cached_answers(
    predictions_h5: str | Path, models: Sequence[str], n_images: int
) -> tuple[list[npt.NDArray[np.floating]] | None, float]:
    """What the cache has of the first validation images, (images, classes) a model, and by how much it is rounded."""
    with open_predictions(predictions_h5) as predictions:
        if not predictions.has_every_class:
            return None, 0.0
        cached = predictions.probabilities("valid")
        answers = [np.array(cached[predictions.models.index(model)][:n_images]) for model in models]
        return answers, cache_rounding(cached.dtype)


def _measured_with(engine: str, library: _Library, config: CostConfig) -> list[dict[str, Any]]:
    """The rows of `costs.csv`, measured with one engine."""
    use_gpu, batch = config.device == "gpu", library.images[: config.batch_size]
    with ExitStack() as stack:
        folders = library.folders
        if engine == "onnxruntime":
            aside = stack.enter_context(tempfile.TemporaryDirectory(prefix="ensembleflow-members-"))
            folders = prepare_members(folders, Path(aside), [engine])
        load = _Loader(engine, config, dict(zip(folders, library.parameter_bytes, strict=True)))

        def make_ready() -> None:
            if engine == DEFAULT_ENGINE:
                configure_tensorflow(config.threads, use_gpu=use_gpu)
            load.load_ahead()

        def import_only() -> None:
            if engine == DEFAULT_ENGINE:
                import_tensorflow(use_gpu=True)

        # First: a GPU that this process has opened may refuse others, and what it takes of one would be counted.
        memory = measure_peak_memory(
            folders,
            library.parameter_bytes,
            batch,
            engine=engine,
            threads=config.threads,
            use_gpu=use_gpu,
            meanwhile=import_only if use_gpu else make_ready,
        )
        if use_gpu:
            make_ready()
        device = _device(engine, config)
        measured = _measure(dict(zip(library.models, folders, strict=True)), library, config, load)
    columns = _optional_columns(list(measured.values()), memory, config.repeats)
    rows = []
    for index, (model, values) in enumerate(measured.items()):
        q25, median, q75 = np.percentile(values.seconds, [25, 50, 75])
        rows.append(
            {
                "model": model,
                "device": device,
                "engine": engine,
                "threads": config.threads,
                "cost_seconds": median,
                "cost_seconds_q25": q25,
                "cost_seconds_q75": q75,
                "cost_seconds_min": min(values.seconds),
                "images_per_second": config.n_images / median,
                "n_images": config.n_images,
                "batch_size": config.batch_size,
                "repeats": config.repeats,
                "parameter_bytes": library.parameter_bytes[index],
                "other_work_percent": values.other_work_percent,
                **{column: numbers[index] for column, numbers in columns.items()},
            }
        )
    return rows


def _device(engine: str, config: CostConfig) -> str:
    """What is measured: a GPU's name, or `cpu`."""
    if config.device == "cpu":
        return "cpu"
    if engine == DEFAULT_ENGINE:
        device = device_name()
    else:
        device = next((gpu.name for gpu in visible_gpus()), "gpu")  # it has loaded a model there
    if device == "cpu":
        raise LibraryError(
            "costs would be measured on another device than asked for",
            where="library.cost.device",
            found=f"this job computes on {device}",
            expected=config.device,
            hint="ask for a GPU with resources.library.gpus, or set library.cost.device",
        )
    return device


@dataclass
class _Measured:
    """Of one model: the repeats' and the requests' times, their energy if known, and what others did meanwhile."""

    seconds: list[float] = field(default_factory=list)
    latency_seconds: list[float] = field(default_factory=list)
    joules: float = 0.0
    other_work_percent: float = 0.0


def _measure(folders: Mapping[str, Path], library: _Library, config: CostConfig, load: _Loader) -> dict[str, _Measured]:
    images = library.images
    read_joules = open_energy_counter(use_gpu=config.device == "gpu") or (lambda: math.nan)
    measured = {model: _Measured() for model in folders}
    for pass_ in range(_PASSES):
        repeats = len(range(pass_, config.repeats, _PASSES))
        requests = range(pass_, config.latency_requests, _PASSES)
        other_work_percent = warn_of_other_work(os.sched_getaffinity(0))
        for place, (model, folder) in enumerate(folders.items()):
            function, values = load(folder), measured[model]
            if pass_ == 0 and library.expected is not None:
                answers = library.expected[place]
                _check(model, function, images[: len(answers)], answers, config.batch_size, library.tolerance)
            values.other_work_percent = max(values.other_work_percent, other_work_percent)
            for _ in range(config.warmup_repeats):
                predict_seconds(function, images, config.batch_size)
            joules = read_joules()
            values.seconds += [predict_seconds(function, images, config.batch_size) for _ in range(repeats)]
            values.joules += read_joules() - joules
            # One image may be computed by other kernels than a batch: these are warmed up too.
            if requests:
                predict_seconds(function, images[:1], 1)
            for request in requests:
                place = request % len(images)
                values.latency_seconds.append(predict_seconds(function, images[place : place + 1], 1))
        logger.info(
            "costs of %d kept models: pass %d/%d measured", len(folders), pass_ + 1, _PASSES, extra={"progress": True}
        )
    return measured


def _check(
    model: str,
    function: LoadedEngine,
    images: npt.NDArray[Any],
    expected: npt.NDArray[np.floating],
    batch_size: int,
    tolerance: float,
) -> None:
    try:
        check_engine(function, images, expected, batch_size, tolerance)
    except EngineError as error:
        error.where = model
        error.hint = f"set library.engine to another one, such as {DEFAULT_ENGINE}"
        raise


class _Loader:
    """Loads models with an engine, and keeps them as far as there is room."""

    def __init__(self, engine: str, config: CostConfig, parameter_bytes: Mapping[Path, int]) -> None:
        self._engine, self._threads, self._gpu = engine, config.threads, config.device == "gpu"
        self._parameter_bytes = parameter_bytes
        self._kept: dict[Path, LoadedEngine] = {}
        self._left_bytes = _KEPT_LOADED_BYTES

    def __call__(self, folder: Path) -> LoadedEngine:
        if folder in self._kept:
            return self._kept[folder]
        function = load_engine(self._engine, folder, self._threads, gpu=self._gpu)
        if self._parameter_bytes[folder] <= self._left_bytes:
            self._left_bytes -= self._parameter_bytes[folder]
            self._kept[folder] = function
        return function

    def load_ahead(self) -> None:
        """Load those for which there is room, up to the first for which there is none."""
        for folder in self._parameter_bytes:
            with suppress(ArtefactError, EngineError):  # told by whoever measures it
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
