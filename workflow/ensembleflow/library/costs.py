"""What a prediction costs: seconds for one device to predict 2,000 images with one model."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import CostConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import LibraryError
from ensembleflow.io import warn_of_other_work, write_csv
from ensembleflow.library.ranking import kept_models
from ensembleflow.models import ExportedModel, configure_tensorflow, device_name, load_exported

__all__ = ["measure_costs"]

# The repeats of one model are spread over so many passes through the library, so that a machine that
# speeds up or slows down meanwhile does so for all models alike.
_PASSES = 3

logger = logging.getLogger("ensembleflow.library")


def measure_costs(
    models_csv: str | Path,
    exported_dir: str | Path,
    dataset_path: str | Path,
    config: CostConfig,
    costs_csv: str | Path,
) -> None:
    """Time each kept model's exported function, one at a time, on an otherwise idle device.

    Each pass warms a model up and then times its share of the repeats; `cost_seconds` is the median of all
    repeats, with quartiles and minimum beside it.

    Args:
        models_csv: the ranked table.
        exported_dir: the exported functions.
        dataset_path: the dataset whose validation images are predicted, repeated up to `n_images`.
        config: device, threads, images, batch size and repeats.
        costs_csv: the table to write, a row a model in rank order.

    Raises:
        LibraryError: the config asks for a GPU and there is none.
        ArtefactError: an exported function cannot be read.
    """
    models = kept_models(models_csv)["model"].tolist()
    configure_tensorflow(config.threads, use_gpu=config.device == "gpu")
    device = device_name()
    if (config.device == "gpu") != (device != "cpu"):
        raise LibraryError(
            "costs would be measured on another device than asked for",
            where="library.cost.device",
            found=f"this job computes on {device}",
            expected=config.device,
            hint="ask for a GPU with resources.library.gpus, or set library.cost.device",
        )
    with open_dataset(dataset_path) as data:
        valid = data.image_array("valid")
        # In ascending runs, as HDF5 wants them.
        images = np.concatenate([valid[: config.n_images - i] for i in range(0, config.n_images, len(valid))])
    warn_of_other_work(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {model: [] for model in models}
    parameter_bytes: dict[str, int] = {}
    for pass_ in range(_PASSES):
        repeats = len(range(pass_, config.repeats, _PASSES))
        for model in models:
            function = load_exported(Path(exported_dir) / model)
            parameter_bytes[model] = function.parameter_bytes
            for _ in range(config.warmup_repeats):
                _predict_seconds(function, images, config.batch_size)
            seconds[model] += [_predict_seconds(function, images, config.batch_size) for _ in range(repeats)]
        logger.info(
            "costs of %d kept models: pass %d/%d measured", len(models), pass_ + 1, _PASSES, extra={"progress": True}
        )
    rows = []
    for model in models:
        q25, median, q75 = np.percentile(seconds[model], [25, 50, 75])
        rows.append(
            {
                "model": model,
                "device": device,
                "threads": config.threads,
                "cost_seconds": median,
                "cost_seconds_q25": q25,
                "cost_seconds_q75": q75,
                "cost_seconds_min": min(seconds[model]),
                "images_per_second": config.n_images / median,
                "n_images": config.n_images,
                "batch_size": config.batch_size,
                "repeats": config.repeats,
                "parameter_bytes": parameter_bytes[model],
            }
        )
    write_csv(costs_csv, pd.DataFrame(rows))


def _predict_seconds(function: ExportedModel, images: npt.NDArray[np.uint8], batch_size: int) -> float:
    started = time.perf_counter()
    function.predict(images, batch_size)
    return time.perf_counter() - started
