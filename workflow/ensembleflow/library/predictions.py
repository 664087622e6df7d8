"""The cache of the kept models' class probabilities: `predictions.h5`, schema `predictions`, version 1.

At the root `models` (ids in rank order); in each of the groups `valid` and `test` `probabilities` (models, samples,
classes), which may be left out, `true_class_probability` (models, samples) and `labels` int64 (samples,). For
segmentation a sample is a pixel. Root attributes study, dataset_checksum, dtype, class_names and weights_sha256.

The arrays lie in the file as they are in memory, so that every process of a machine maps the same pages of the
system's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError
from ensembleflow.io import map_array, open_hdf5

__all__ = ["SCHEMA", "SCHEMA_VERSION", "SPLITS", "FileSource", "Predictions", "open_predictions"]

SCHEMA, SCHEMA_VERSION = "predictions", 1
SPLITS = ("valid", "test")


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

    def mapped_labels(self, split: str) -> npt.NDArray[Any]:
        """The same, integers as they are stored: mapped where they lie as in memory, read where they are used."""
        mapped = map_array(self._file[split]["labels"])
        return mapped if isinstance(mapped, np.memmap) else self.labels(split)

    def probabilities(self, split: str) -> npt.NDArray[Any]:
        """All class probabilities, float32 or float16 (models, samples, classes): mapped, read where they are used.

        Raises:
            ArtefactError: the cache holds the true class's only (`has_every_class` is false).
        """
        if not self.has_every_class:
            raise ArtefactError(
                "the cache holds the true class's probabilities only",
                where=self.path,
                expected="the probabilities of every class",
                hint="set library.predictions.every_class: true and make the cache again: snakemake library",
            )
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
    def _arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
        with open_predictions(self.path) as predictions:
            values = (predictions.probabilities if self.every_class else predictions.true_class_probability)(self.split)
            return values, predictions.mapped_labels(self.split), predictions.n_classes

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
        """Stored probabilities (models, samples[, classes]) and labels int64 (samples,), read into memory."""
        values, labels, _ = self._arrays
        return _columns_of(values, start, stop), np.array(labels[start:stop], dtype=np.int64)

    def part(self, start: int, stop: int) -> FileSource:
        """The source itself, which reads nothing but what it is asked for."""
        return self


def _columns_of(values: npt.NDArray[Any], start: int, stop: int) -> npt.NDArray[Any]:
    """`values[:, start:stop]` in memory of their own."""
    if not isinstance(values, np.memmap):
        return np.array(values[:, start:stop])
    columns = np.empty((len(values), stop - start, *values.shape[2:]), values.dtype)
    # Not copied from the map, whose pages would count as this process's memory.
    with open(values.filename, "rb") as file:
        for column, mapped in zip(columns, values[:, start:stop], strict=True):
            file.seek(values.offset + mapped.ctypes.data - values.ctypes.data)
            if file.readinto(column) != column.nbytes:
                raise ArtefactError("an artefact was cut off while it was read", where=values.filename)
    return columns


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
