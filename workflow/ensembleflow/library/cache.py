"""Exporting the kept models and caching what they predict."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ensembleflow.config import PredictionsConfig
from ensembleflow.datasets import Dataset, open_dataset
from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_directory
from ensembleflow.library.predictions_file import PredictionsWriter, create_predictions
from ensembleflow.library.ranking import kept_models
from ensembleflow.models import (
    ExportedModel,
    configure_tensorflow,
    export_model,
    load_exported,
    load_family,
    load_model,
    prediction_batch_size,
    weights_sha256,
)

__all__ = ["cache_predictions"]

_PROGRESS_SECONDS = 10

logger = logging.getLogger("ensembleflow.library")


def cache_predictions(
    models_csv: str | Path,
    model_folders: Sequence[str | Path],
    dataset_path: str | Path,
    study: str,
    config: PredictionsConfig,
    exported_dir: str | Path,
    predictions_h5: str | Path,
    threads: int = 1,
    use_gpu: bool = False,
    families: Sequence[str | Path] = (),
) -> None:
    """Export each kept model and cache what its exported function predicts on all images but the training ones.

    Images are read, predicted and stored a batch at a time, so memory does not grow with the dataset or the library.

    Args:
        models_csv: the ranked table.
        model_folders: the search jobs' folders of `.keras` files.
        dataset_path: the prepared dataset.
        study: the study's name.
        config: what is cached, and in which precision.
        exported_dir: folder to make, with one exported function a model.
        predictions_h5: the cache to write.
        threads: CPU cores to use.
        use_gpu: predict on a GPU if there is one.
        families: the files of families other than `resnet`, whose layers the models may have.

    Raises:
        FamilyError: a family's file cannot be run.
        ArtefactError: a model's file is missing, damaged, or holds other weights than the trial recorded.
        LibraryError: what a model answers are no class probabilities.
    """
    kept = kept_models(models_csv)
    files = {path.stem: path for folder in model_folders for path in Path(folder).glob("*.keras")}
    if missing := [f"{model}.keras" for model in kept["model"] if model not in files]:
        raise ArtefactError(
            "a kept model's weights are missing",
            where=", ".join(missing),
            hint="delete the study's folder search/models and run snakemake again: no trial is trained again",
        )
    configure_tensorflow(threads, use_gpu=use_gpu)
    for family in families:
        load_family(family)
    weights = dict(zip(kept["model"].astype(str), kept["weights_sha256"].astype(str), strict=True))
    with (
        open_dataset(dataset_path) as data,
        create_predictions(
            predictions_h5,
            study=study,
            dataset_checksum=data.checksum,
            class_names=data.class_names,
            models=list(weights),
            weights_sha256=list(weights.values()),
            labels={split: data.labels(split) for split in _predicted(data)},
            dtype=config.dtype,
            every_class=config.every_class,
        ) as writer,
        # Within, so that a full disk is told as what it is: leaving it frees what was exported, and the file is closed.
        atomic_directory(exported_dir) as folder,
    ):
        for index, (model, sha256) in enumerate(weights.items()):
            _export(model, files[model], sha256, folder, data.image_dtype)
            told = f"predictions of kept models: {index}/{len(weights)} cached"
            _cache(load_exported(folder / model), data, writer, index, f"{told}, {model}")
            told = f"predictions of kept models: {index + 1}/{len(weights)} cached"
            logger.info("%s", told, extra={"progress": True})


def _predicted(data: Dataset) -> list[str]:
    return [split for split in data.splits if split != "train"]


def _cache(function: ExportedModel, data: Dataset, writer: PredictionsWriter, model_index: int, told: str) -> None:
    """Cache one model's predictions, telling every few seconds how many."""
    batch_size = prediction_batch_size(data.image_shape)
    images = {split: data.image_array(split) for split in _predicted(data)}
    n_images, n_done, told_at = sum(map(len, images.values())), 0, time.monotonic()
    for split in images:
        for start in range(0, len(images[split]), batch_size):
            batch = images[split][start : start + batch_size]
            writer.write(split, model_index, start, function.predict(batch, batch_size))
            n_done += len(batch)
            if time.monotonic() - told_at >= _PROGRESS_SECONDS:
                told_at = time.monotonic()
                logger.info("%s: %d of %d images", told, n_done, n_images, extra={"progress": True})


def _export(model: str, file: Path, recorded_sha256: str, folder: Path, image_dtype: str) -> None:
    network = load_model(file)
    found = weights_sha256(network)
    if found != recorded_sha256:
        raise ArtefactError(
            "a model's weights are not those that its trial recorded",
            where=file,
            found=found,
            expected=recorded_sha256,
            hint=f"delete {file.parent} and run snakemake again",
        )
    export_model(network, folder / model, image_dtype)
