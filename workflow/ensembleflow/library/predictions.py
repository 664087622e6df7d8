"""The cache of the kept models' class probabilities: `predictions.h5`, schema `predictions`, version 1.

At the root `models` (ids in rank order); in each of the groups `valid` and `test`, and `calibration` where the dataset
has such images, `probabilities` (models, samples, classes), which may be left out, `true_class_probability` (models,
samples) and `labels` int64 (samples,). For segmentation a sample is a pixel. Root attributes study, dataset_checksum,
dtype, class_names and weights_sha256.

Where every probability was checked as it was written, each group has `first_not_finite` int64 (models,) as well: the
first sample with a value that is no number, or -1. Who reads a cache without it has to look at all values.

The arrays lie in the file as they are in memory, so that every process of a machine maps the same pages of the
system's cache. Chunked or compressed arrays, which other tools write, are read from the open file instead.
"""

from __future__ import annotations

import io
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import file_path, one_of
from ensembleflow.datasets import CALIBRATION
from ensembleflow.errors import ArtefactError
from ensembleflow.io import map_array, open_hdf5

__all__ = [
    "FIRST_NOT_FINITE",
    "IDS_EXPECTED",
    "SCHEMA",
    "SCHEMA_VERSION",
    "SPLITS",
    "FileSource",
    "Predictions",
    "fault_of_ids",
    "first_wrong_label",
    "open_predictions",
]

SCHEMA, SCHEMA_VERSION = "predictions", 1
SPLITS = ("valid", "test")
"""What each cache has; one of a dataset with images set aside has `calibration` as well."""
FIRST_NOT_FINITE = "first_not_finite"
IDS_EXPECTED = "ids that differ, without blanks"

# A segmentation's labels, a pixel each, are too many to be looked at all at once.
_LABELS_AT_ONCE = 2**20


class Predictions:
    """An open cache.

    Attributes:
        path: of the file.
        study: the study's name.
        models: the kept models' ids, in rank order.
        class_names: the classes' names.
        dataset_checksum: of the dataset that was predicted.
        n_classes: classes.
        splits: `valid` and `test`, and `calibration` where there is one.
        has_every_class: whether all class probabilities are cached, or the true class's only.

    Raises:
        ArtefactError: the arrays' shapes do not belong together, or a model is there twice or has blanks in its id.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.path = Path(file.filename)
        self.study = str(file.attrs["study"])
        self.models: list[str] = [str(model) for model in file["models"].asstr()[...]]
        self.class_names: list[str] = [str(name) for name in file.attrs["class_names"]]
        self.dataset_checksum = str(file.attrs["dataset_checksum"])
        self.n_classes = len(self.class_names)
        self.splits = (*SPLITS, *([CALIBRATION] if CALIBRATION in file else []))
        self.has_every_class = all("probabilities" in file[split] for split in self.splits)
        self._check_models()
        for split in self.splits:
            self._check_shapes(split)

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """The true classes of a split, int64 (samples,).

        Raises:
            ArtefactError: a label is not a class.
        """
        self.check_labels(split)
        return np.asarray(self._split(split)["labels"][...], dtype=np.int64)

    def mapped_labels(self, split: str) -> npt.NDArray[Any]:
        """The same, unchecked and as they are stored: mapped where they lie as in memory, else read."""
        mapped = map_array(self._split(split)["labels"])
        return mapped if isinstance(mapped, np.memmap) else mapped[...]

    def check_labels(self, split: str) -> None:
        """Look at the labels of a split, some at a time.

        Raises:
            ArtefactError: one is not a class.
        """
        labels = self._split(split)["labels"]
        for start in range(0, len(labels), _LABELS_AT_ONCE):
            part = labels[start : start + _LABELS_AT_ONCE]
            if (wrong := first_wrong_label(part, self.n_classes)) is not None:
                raise ArtefactError(
                    "a label is not a class",
                    where=f"{self.path}: {split}, sample {start + wrong}",
                    found=part[wrong],
                    expected=f"integers in 0 … {self.n_classes - 1}",
                )

    def first_not_finite(self, split: str) -> npt.NDArray[np.int64] | None:
        """Each model's first sample with a probability that is no number, or -1: int64 (models,).

        None where the values were not checked as they were written.
        """
        stored = self._split(split).get(FIRST_NOT_FINITE)
        return None if stored is None else np.asarray(stored[...], dtype=np.int64)

    def probabilities(self, split: str) -> npt.NDArray[Any]:
        """All class probabilities, float32 or float16 (models, samples, classes): mapped, read where they are used.

        Raises:
            ArtefactError: the cache holds the true class's only (`has_every_class` is false).
        """
        group = self._split(split)
        if not self.has_every_class:
            raise ArtefactError(
                "the cache holds the true class's probabilities only",
                where=self.path,
                expected="the probabilities of every class",
                hint="set library.predictions.every_class: true and make the cache again: snakemake library",
            )
        return map_array(group["probabilities"])

    def true_class_probability(self, split: str) -> npt.NDArray[Any]:
        """The true class's probabilities (models, samples), mapped: all that the cross-entropy needs."""
        return map_array(self._split(split)["true_class_probability"])

    def _split(self, split: str) -> h5py.Group:
        return self._file[one_of("split", split, self.splits)]

    def _check_models(self) -> None:
        if (fault := fault_of_ids(self.models)) is not None:
            raise ArtefactError(
                "a predictions cache names its models wrongly", where=self.path, found=fault, expected=IDS_EXPECTED
            )

    def _check_shapes(self, split: str) -> None:
        group, n_models = self._file[split], len(self.models)
        n_samples = len(group["labels"])
        expected = {
            "true_class_probability": (n_models, n_samples),
            "probabilities": (n_models, n_samples, self.n_classes),
            "labels": (n_samples,),
            FIRST_NOT_FINITE: (n_models,),
        }
        for name, shape in expected.items():
            if name in ("probabilities", FIRST_NOT_FINITE) and name not in group:
                continue
            if group[name].shape != shape:
                raise ArtefactError(
                    "the arrays of a predictions cache do not belong together",
                    where=f"{self.path}: {split}/{name}",
                    found=group[name].shape,
                    expected=f"{shape}: {n_models} models, {n_samples} labels, {self.n_classes} class names",
                )
            if name.endswith(("probability", "probabilities")) and group[name].dtype.kind != "f":
                raise ArtefactError(
                    "the probabilities of a predictions cache are of another type",
                    where=f"{self.path}: {split}/{name}",
                    found=group[name].dtype,
                    expected="float16, float32 or float64",
                )


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
        with ExitStack() as opened:
            predictions = opened.enter_context(open_predictions(self.path))
            values = (predictions.probabilities if self.every_class else predictions.true_class_probability)(self.split)
            if not isinstance(values, np.memmap):
                # What cannot be mapped is read from the open file, as long as this source is.
                weakref.finalize(self, opened.pop_all().close)
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
    with io.BufferedReader(io.FileIO(str(values.filename))) as file:
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
    with open_hdf5(file_path("path", path), SCHEMA, SCHEMA_VERSION) as file:
        try:
            predictions = Predictions(file)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise ArtefactError("a predictions cache is incomplete", where=path, found=error) from None
        yield predictions


def fault_of_ids(models: Sequence[str]) -> str | None:
    """What is wrong with models' ids, if anything is: tables name an ensemble's members with blanks between them."""
    if twice := [model for model, count in Counter(models).items() if count > 1]:
        return f"twice: {', '.join(twice)}"
    if blank := [model for model in models if model.split() != [model]]:
        return f"blank, or with blanks: {', '.join(map(repr, blank))}"
    return None


def first_wrong_label(labels: npt.NDArray[Any], n_classes: int) -> int | None:
    """The place of the first label that is no integer in 0 … classes - 1, if there is one.

    Args:
        labels: of any type (samples,).
        n_classes: classes.
    """
    if labels.dtype.kind not in "biuf":
        return 0 if len(labels) else None
    wrong = (labels < 0) | (labels >= n_classes)
    if labels.dtype.kind == "f":
        wrong |= labels != np.floor(labels)
    return int(wrong.argmax()) if wrong.any() else None
