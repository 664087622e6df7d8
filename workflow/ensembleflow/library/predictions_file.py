"""Writing a predictions cache batch by batch, whatever made the probabilities and however many samples there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import array, file_path, mapping, one_of, text, texts, whole_number
from ensembleflow.datasets import CALIBRATION
from ensembleflow.errors import LibraryError
from ensembleflow.io import create_hdf5
from ensembleflow.library.predictions import (
    FIRST_NOT_FINITE,
    IDS_EXPECTED,
    SCHEMA,
    SCHEMA_VERSION,
    SPLITS,
    fault_of_ids,
    first_wrong_label,
)
from ensembleflow.models.tolerances import OUTSIDE_BY, sum_off_by

__all__ = ["PredictionsWriter", "create_predictions"]

_LABELS_A_READ = 2**20
_DTYPES = ("float32", "float16", "float64")


class PredictionsWriter:
    """A cache that is being written; made by `create_predictions`.

    Args:
        file: the file that is written aside.
        path: the file's name in messages.
        class_names: the classes' names.
        models: the models' ids.
        labels: by split, integers (samples,).
        dtype: of the stored probabilities.
        every_class: whether all class probabilities are stored, or the true class's only.
    """

    def __init__(
        self,
        file: h5py.File,
        path: Path,
        class_names: Sequence[str],
        models: Sequence[str],
        labels: Mapping[str, npt.NDArray[np.integer[Any]]],
        dtype: npt.DTypeLike,
        every_class: bool,
    ) -> None:
        self._path = path
        self._models = list(models)
        self._n_classes = len(class_names)
        self._labels = labels
        self._dtype = np.dtype(dtype)
        self._n_written = {split: [0] * len(self._models) for split in labels}
        self._every_class: dict[str, h5py.Dataset] = {}
        self._true_class: dict[str, h5py.Dataset] = {}
        self._first_not_finite = {split: np.full(len(self._models), -1, dtype=np.int64) for split in labels}
        self._first_not_finite_stored: dict[str, h5py.Dataset] = {}
        for split in labels:
            group, shape = file.create_group(split), (len(self._models), len(labels[split]))
            if every_class:
                self._every_class[split] = _contiguous(group, "probabilities", (*shape, self._n_classes), self._dtype)
            self._true_class[split] = _contiguous(group, "true_class_probability", shape, self._dtype)
            stored = _contiguous(group, "labels", shape[1:], np.dtype(np.int64))
            for start in range(0, shape[1], _LABELS_A_READ):
                part = np.asarray(labels[split][start : start + _LABELS_A_READ])
                self._check_labels(split, start, part)
                stored[start : start + len(part)] = part
            self._first_not_finite_stored[split] = _contiguous(
                group, FIRST_NOT_FINITE, shape[:1], self._first_not_finite[split].dtype
            )

    def write(
        self, split: str, model_index: int, first_sample: int, probabilities: npt.NDArray[np.floating[Any]]
    ) -> None:
        """Store the next samples of one model; each model's samples come in order, models and splits in any.

        Probabilities that are not a number are stored as they are: the selection tells of a diverged model. One above 0
        is stored as no less than the smallest above 0 that the storage knows, so that its logarithm stays finite.

        Args:
            split: one of those that there are labels of.
            model_index: the model's place in `models`.
            first_sample: of this batch.
            probabilities: floats (samples, classes).

        Raises:
            LibraryError: they have another shape or place, lie outside 0 … 1, or do not add up to 1.
            ArgumentError: the split, the model or the batch is none.
        """
        split = one_of("split", split, tuple(self._labels))
        model_index = whole_number("model_index", model_index, 0, len(self._models) - 1)
        first_sample = whole_number("first_sample", first_sample, 0)
        probabilities = array("probabilities", probabilities, "fiu", "floats (samples, classes)")
        if probabilities.dtype.kind != "f":
            probabilities = probabilities.astype(np.float64)
        if probabilities.ndim == 0:
            probabilities = probabilities.reshape(1)
        model, stop = self._models[model_index], first_sample + len(probabilities)
        self._check_place(split, model_index, first_sample, stop, probabilities.shape)
        self._check_values(f"model {model}, {split}", first_sample, probabilities)
        not_finite = ~np.isfinite(probabilities).all(axis=1)
        if not_finite.any() and self._first_not_finite[split][model_index] < 0:
            self._first_not_finite[split][model_index] = first_sample + not_finite.argmax()
        stored = probabilities.astype(self._dtype)
        if stored.itemsize < probabilities.itemsize:
            stored[(stored == 0) & (probabilities > 0)] = np.finfo(self._dtype).smallest_subnormal
        if split in self._every_class:
            self._every_class[split][model_index, first_sample:stop] = stored
        truth = np.asarray(self._labels[split][first_sample:stop])
        self._true_class[split][model_index, first_sample:stop] = stored[np.arange(len(truth)), truth]
        self._n_written[split][model_index] = stop

    def finish(self) -> None:
        """Say in the file that every value was checked; a cache that lacks samples is refused.

        Raises:
            LibraryError: a model's samples were not all written.
        """
        for split in self._labels:
            expected = len(self._labels[split])
            for model, n_written in zip(self._models, self._n_written[split], strict=True):
                if n_written != expected:
                    where = f"{self._path}: model {model}, {split}"
                    raise LibraryError(
                        "a cache lacks predictions", where=where, found=f"{n_written} samples", expected=expected
                    )
            self._first_not_finite_stored[split][...] = self._first_not_finite[split]

    def _check_labels(self, split: str, start: int, labels: npt.NDArray[Any]) -> None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise LibraryError(
                "the labels are of another type",
                where=f"{self._path}: {split}",
                found=f"{labels.dtype}, {labels.ndim} axes",
                expected="integers (samples,)",
            )
        if (wrong := first_wrong_label(labels, self._n_classes)) is not None:
            raise LibraryError(
                "a label is not a class",
                where=f"{self._path}: {split}, sample {start + wrong}",
                found=labels[wrong],
                expected=f"integers in 0 … {self._n_classes - 1}",
            )

    def _check_place(self, split: str, model_index: int, start: int, stop: int, shape: tuple[int, ...]) -> None:
        where = f"{self._path}: model {self._models[model_index]}, {split}, sample {start}"
        if len(shape) != 2 or shape[1] != self._n_classes:
            raise LibraryError(
                "a batch of probabilities has another shape",
                where=where,
                found=shape,
                expected=f"(samples, {self._n_classes})",
            )
        expected, n_samples = self._n_written[split][model_index], len(self._labels[split])
        if start != expected or stop > n_samples:
            raise LibraryError(
                "a batch of probabilities is out of place",
                where=where,
                found=f"samples {start} … {stop - 1}",
                expected=f"samples from {expected} on, of {n_samples}",
            )

    def _check_values(self, whose: str, start: int, probabilities: npt.NDArray[np.floating[Any]]) -> None:
        # A comparison with what is not a number is false, and lets it pass.
        outside = ((probabilities < -OUTSIDE_BY) | (probabilities > 1 + OUTSIDE_BY)).any(axis=1)
        if outside.any():
            row = int(outside.argmax())
            raise LibraryError(
                "a probability is outside 0 … 1",
                where=f"{self._path}: {whose}, sample {start + row}",
                found=f"values in {np.nanmin(probabilities[row]):g} … {np.nanmax(probabilities[row]):g}",
                expected="class probabilities",
                hint="a model must end in a softmax: store its probabilities, not its logits",
            )
        sums = probabilities.sum(axis=1, dtype=np.float64)
        off = np.abs(sums - 1) > sum_off_by(probabilities.dtype)
        if off.any():
            row = int(off.argmax())
            raise LibraryError(
                "the probabilities of a sample do not add up to 1",
                where=f"{self._path}: {whose}, sample {start + row}",
                found=f"a sum of {sums[row]:g}",
                expected="1, within the rounding of a softmax",
                hint="a model must end in a softmax: one sigmoid a class is no distribution",
            )


@contextmanager
def create_predictions(
    path: str | Path,
    *,
    study: str,
    dataset_checksum: str,
    class_names: Sequence[str],
    models: Sequence[str],
    weights_sha256: Sequence[str],
    labels: Mapping[str, npt.NDArray[np.integer[Any]]],
    dtype: str = "float32",
    every_class: bool = True,
) -> Iterator[PredictionsWriter]:
    """Write a predictions cache batch by batch: no more than one batch is in memory.

    The file appears under its name when the block ends well and every sample of every model was written. The same
    probabilities give the same bytes, whatever the batches.

    Example:
        A segmentation, whose samples are pixels::

            labels = {split: masks[split].reshape(-1) for split in ("valid", "test")}
            with create_predictions("predictions.h5", ..., labels=labels, dtype="float16") as writer:
                for index, model in enumerate(models):
                    for split, images in (("valid", valid_images), ("test", test_images)):
                        for i, image in enumerate(images):
                            pixels = model(image).reshape(-1, n_classes)
                            writer.write(split, index, i * len(pixels), pixels)

    Args:
        path: the file.
        study: the study's name.
        dataset_checksum: of the dataset that is predicted.
        class_names: the classes' names.
        models: the models' ids, in rank order; without blanks.
        weights_sha256: the models' checksums.
        labels: the true classes of `valid` and `test`, and of `calibration` if there is one, integers (samples,) in
            0 … classes - 1; mapped arrays will do.
        dtype: `float32` or `float16`.
        every_class: store all class probabilities, or the true class's only, which is all that the cross-entropy needs.

    Yields:
        The writer.

    Raises:
        LibraryError: a label is no class, an id is there twice or has blanks, or samples are missing at the end.
        ArgumentError: names or ids are no texts, labels of a split are missing or no numbers, or `dtype` is another.
        StorageError: the disk is full or the folder cannot be written. `path` is then as it was.
    """
    path = file_path("path", path)
    study, dataset_checksum = text("study", study), text("dataset_checksum", dataset_checksum)
    class_names, models = texts("class_names", class_names), texts("models", models)
    weights_sha256 = texts("weights_sha256", weights_sha256)
    if len(weights_sha256) != len(models):
        raise LibraryError(
            "the checksums do not match the models", where=path, found=len(weights_sha256), expected=len(models)
        )
    dtype = one_of("dtype", dtype, _DTYPES)
    by_split = mapping("labels", labels, SPLITS)
    labels = {split: _labels_of(split, by_split[split]) for split in (*SPLITS, CALIBRATION) if split in by_split}
    if (fault := fault_of_ids(models)) is not None:
        raise LibraryError("the models' ids cannot be told apart", where=path, found=fault, expected=IDS_EXPECTED)
    strings = h5py.string_dtype()
    with create_hdf5(path, SCHEMA, SCHEMA_VERSION) as file:
        file.attrs["study"] = study
        file.attrs["dataset_checksum"] = dataset_checksum
        file.attrs["dtype"] = dtype
        file.attrs["class_names"] = np.array(list(class_names), dtype=strings)
        file.attrs["weights_sha256"] = np.array(list(weights_sha256), dtype=strings)
        file.create_dataset("models", data=list(models), dtype=strings)
        writer = PredictionsWriter(file, path, class_names, models, labels, dtype, every_class)
        yield writer
        writer.finish()


def _labels_of(split: str, values: Any) -> npt.NDArray[Any]:
    # What is mapped or of another type is looked at a part at a time, as it is written.
    given = values if hasattr(values, "dtype") else array(f"labels[{split!r}]", values, "iufbU", "integers (samples,)")
    return given.reshape(1) if given.ndim == 0 else given


def _contiguous(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """An array that lies in the file as in memory; its place is fixed now, not when it is first written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return group.create_dataset(name, shape, dtype, dcpl=creation, fill_time="never")
