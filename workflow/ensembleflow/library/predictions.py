"""The cache of the kept models' class probabilities."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ensembleflow.datasets import open_dataset
from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_directory, create_hdf5, map_array, open_hdf5
from ensembleflow.library.ranking import kept_models
from ensembleflow.models import (
    configure_tensorflow,
    export_model,
    load_exported,
    load_model,
    prediction_batch_size,
    weights_sha256,
)

__all__ = ["FileSource", "Predictions", "cache_predictions", "open_predictions"]

SCHEMA, SCHEMA_VERSION = "predictions", 1
SPLITS = ("valid", "test")

logger = logging.getLogger("ensembleflow.library")


class Predictions:
    """An open cache.

    Attributes:
        path: of the file.
        study: the study's name.
        models: the kept models' ids, in rank order.
        class_names: the classes' names.
        dataset_checksum: of the dataset that was predicted.
        n_classes: classes.
        has_every_class: whether all class probabilities are cached, or the true class's only.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.path = Path(file.filename)
        self.study = str(file.attrs["study"])
        self.models: list[str] = [str(model) for model in file["models"].asstr()[...]]
        self.class_names: list[str] = [str(name) for name in file.attrs["class_names"]]
        self.dataset_checksum = str(file.attrs["dataset_checksum"])
        self.n_classes = len(self.class_names)
        self.has_every_class = all("probabilities" in file[split] for split in SPLITS)

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """The true classes of `valid` or `test`, int64 (samples,)."""
        return np.asarray(self._file[split]["labels"][...], dtype=np.int64)

    def probabilities(self, split: str) -> npt.NDArray[Any]:
        """All class probabilities, float32 or float16 (models, samples, classes): mapped, read where they are used."""
        return map_array(self._file[split]["probabilities"])

    def true_class_probability(self, split: str) -> npt.NDArray[Any]:
        """The true class's probabilities (models, samples), mapped: all that the cross-entropy needs."""
        return map_array(self._file[split]["true_class_probability"])


@dataclass(frozen=True)
class FileSource:
    """A split of a cache, for whoever sums over it: it is opened where it is read.

    Args:
        path: the cache.
        split: `valid` or `test`.
        every_class: read all class probabilities rather than the true class's.
    """

    path: Path
    split: str
    every_class: bool

    @cached_property
    def _arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], int]:
        with open_predictions(self.path) as predictions:
            values = (predictions.probabilities if self.every_class else predictions.true_class_probability)(self.split)
            return values, predictions.labels(self.split), predictions.n_classes

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "split": self.split, "every_class": self.every_class}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def n_samples(self) -> int:
        """Samples of the split."""
        return len(self._arrays[1])

    @property
    def n_classes(self) -> int:
        """Classes."""
        return self._arrays[2]

    @property
    def bytes_per_sample(self) -> int:
        """What one sample of all models takes."""
        values = self._arrays[0]
        return values.nbytes // max(1, values.shape[1])

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Stored probabilities (models, samples[, classes]), copied into memory, and labels (samples,)."""
        values, labels, _ = self._arrays
        return np.array(values[:, start:stop]), labels[start:stop]


@contextmanager
def open_predictions(path: str | Path) -> Iterator[Predictions]:
    """Open a cache for reading.

    Raises:
        ArtefactError: it is missing, truncated, or of another schema version.
    """
    with open_hdf5(path, SCHEMA, SCHEMA_VERSION) as file:
        try:
            predictions = Predictions(file)
        except (KeyError, AttributeError) as error:
            raise ArtefactError("a predictions cache is incomplete", where=path, found=error) from None
        yield predictions


def cache_predictions(
    models_csv: str | Path,
    model_folders: Sequence[str | Path],
    dataset_path: str | Path,
    study: str,
    exported_dir: str | Path,
    predictions_h5: str | Path,
    threads: int = 1,
    use_gpu: bool = False,
) -> None:
    """Export each kept model and cache what its exported function predicts on validation and test.

    Args:
        models_csv: the ranked table.
        model_folders: the search jobs' folders of `.keras` files.
        dataset_path: the prepared dataset.
        study: the study's name.
        exported_dir: folder to make, with one exported function a model.
        predictions_h5: the cache to write.
        threads: CPU cores to use.
        use_gpu: predict on a GPU if there is one.

    Raises:
        ArtefactError: a model's file is missing, damaged, or holds other weights than the trial recorded.
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
    with open_dataset(dataset_path) as data, atomic_directory(exported_dir) as folder:
        images = {split: data.image_array(split) for split in SPLITS}
        labels = {split: data.labels(split) for split in SPLITS}
        batch_size = prediction_batch_size(data.image_shape)
        probabilities: dict[str, list[Any]] = {split: [] for split in SPLITS}
        weights = dict(zip(kept["model"].astype(str), kept["weights_sha256"].astype(str), strict=True))
        for done, (model, sha256) in enumerate(weights.items(), start=1):
            _export(model, files[model], sha256, folder)
            function = load_exported(folder / model)
            for split in SPLITS:
                probabilities[split].append(function.predict(images[split], batch_size))
            logger.info("predictions of kept models: %d/%d cached", done, len(weights), extra={"progress": True})
        with create_hdf5(predictions_h5, SCHEMA, SCHEMA_VERSION) as file:
            file.attrs["study"] = study
            file.attrs["dataset_checksum"] = data.checksum
            file.attrs["dtype"] = "float32"
            file.attrs["class_names"] = np.array(data.class_names, dtype=h5py.string_dtype())
            file.attrs["weights_sha256"] = np.array(list(weights.values()), dtype=h5py.string_dtype())
            file.create_dataset("models", data=list(weights), dtype=h5py.string_dtype())
            for split in SPLITS:
                group = file.create_group(split)
                cached = np.stack(probabilities[split]).astype(np.float32)
                group.create_dataset("probabilities", data=cached)
                true_class = cached[:, np.arange(len(labels[split])), labels[split]]
                group.create_dataset("true_class_probability", data=true_class)
                group.create_dataset("labels", data=labels[split])


def _export(model: str, file: Path, recorded_sha256: str, folder: Path) -> None:
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
    export_model(network, folder / model)
